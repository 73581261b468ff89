"""Configuration files, read into nested tables; a file may extend another.

{"extends": "federation.json", "server": {"defense": {"type": "flame"}}}
"""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from entity.config import schema
from entity.config.paths import user_path
from entity.config.schema import ConfigError, suggest
from entity.config.shipped import file_or_shipped, names
from entity.reading import TooDeep, at_most, deeper_than, parse_json, read_bytes
from entity.setup.bounded_yaml import MOST_DIGITS, NUMBERS, BoundedLoader
from entity.setup.file_faults import refuse_faults, refuse_other_names
from entity.setup.foreign_fields import forget_foreign_args, forget_foreign_attack_fields
from entity.setup.plugins import located, use

MOST_BYTES = 1 << 20
"""Size of a configuration file."""

MOST_LEVELS = 20
"""Tables and lists within one another."""

EXTENDS = "extends"
"""The key that names the configuration beneath."""

MOST_FILES = 10
"""Files that may extend one another, one after the other."""


def read(path: Path | str, option: str = "--config") -> dict[str, Any]:
    """Read a configuration, from JSON or YAML, with those that it extends.

    Parameters
    ----------
    path
        The file; `.yaml` and `.yml` are YAML, `.toml` is refused, anything else is JSON.
    option
        Where the user named the file, for messages.

    Returns
    -------
    Nested tables, whole: without `extends`.

    Raises
    ------
    ConfigError
        If a file is missing or cannot be parsed, or `extends` names no configuration, goes in a
        circle or through more than `MOST_FILES`.
    """
    path = user_path(path)
    return extended(read_file(path, option), path, f"{option} {path}")


def extended(data: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Return tables over those of the configuration that they extend, if any.

    Parameters
    ----------
    data
        Nested tables, as the file `path` holds them.
    path
        That file: `extends` names a file relative to its folder, or a shipped configuration.
    where
        What holds the tables, for messages.

    Raises
    ------
    ConfigError
        As `read`.
    """
    tables, layers, files = _with_plugins(data, path, where), [], [path]
    refuse_other_names(tables, EXTENDS, where)
    while EXTENDS in tables:
        name = tables.pop(EXTENDS)
        refuse_depth(tables, where)
        layers.append(tables)
        path = _parent(name, files, f"{where}: extends")
        files.append(path)
        where, below = f"{where}: extends {path}", read_file(path, f"{where}: extends")
        tables = _with_plugins(below, path, where)
        refuse_depth(tables, where)
        refuse_other_names(tables, EXTENDS, where)
        refuse_faults(tables, EXTENDS, where)
    for layer in reversed(layers):
        tables = merged(tables, layer)
    return tables


def _with_plugins(data: Mapping[str, Any], path: Path, where: str) -> dict[str, Any]:
    """Load the plugins that a file names, as its fields depend on them; return its tables."""
    tables = dict(data)
    located(tables, path.parent, where)
    if tables.get("plugins"):
        tables["plugins"] = list(use(tables["plugins"]))
    return tables


def _parent(name: object, files: Sequence[Path], where: str) -> Path:
    """Return the file that `extends` names in the last of some files."""
    if not isinstance(name, str) or not name.strip():
        raise ConfigError(
            f"{where} = {schema.show(name)}: allowed is a file, or the name of a shipped "
            "configuration."
        )
    if "\0" in name:
        raise ConfigError(
            f"{where} = {schema.show(name)}: holds a NUL character, which no path can."
        )
    path = file_or_shipped(name, files[-1].parent)
    if os.path.realpath(path) in map(os.path.realpath, files):
        raise ConfigError(f"{where} {path}: goes in a circle.")
    if len(files) == MOST_FILES:
        raise ConfigError(f"{where} {path}: is one too many; allowed are {MOST_FILES} files.")
    return path


def merged(base: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the tables of a configuration over those that it extends.

    Tables are merged key by key, and plugins are added to plugins; anything else, null and lists
    among it, replaces. Where another defense, attack or data poison is chosen, the settings that it
    does not have are forgotten.

    Examples
    --------
    >>> base = {"client": {"lr": 0.1}, "server": {"defense": {"type": "drop",
    ...     "defense_args": {"K": 5, "num_seed": 300}}}}
    >>> merged(base, {"server": {"defense": {"type": "finetuning"}}})["server"]
    {'defense': {'type': 'finetuning', 'defense_args': {'num_seed': 300}}}
    """
    result = deepcopy(dict(base))
    for path, choices, forget in (
        (("server", "defense"), ("type",), forget_foreign_args),
        (("client", "attack"), ("type", "poison"), forget_foreign_attack_fields),
    ):
        old, new = _table(result, path), _table(tables, path)
        chosen = {key: new[key] for key in choices if key in new and new[key] != old.get(key)}
        if chosen and old:
            old.update(chosen)
            forget(old)
    laid = _laid_over(result, tables)
    if base.get("plugins") and isinstance(laid.get("plugins"), list):
        laid["plugins"] = list(dict.fromkeys([*base["plugins"], *laid["plugins"]]))
    return laid


def _table(tables: Any, path: Sequence[str]) -> dict[str, Any]:
    for name in path:
        tables = tables.get(name) if isinstance(tables, dict) else None
    return tables if isinstance(tables, dict) else {}


def _laid_over(base: Mapping[str, Any], tables: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(base)
    for key, value in tables.items():
        below = result.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _laid_over(below, value)
        result[key] = value
    return result


def read_file(path: Path, option: str) -> dict[str, Any]:
    """Read one file as nested tables, from JSON or YAML, just as it stands.

    Parameters
    ----------
    path
        The file; `.yaml` and `.yml` are YAML, `.toml` is refused, anything else is JSON.
    option
        Where the user named the file, for messages.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be parsed.
    """
    language = _LANGUAGES.get(path.suffix.lower(), "JSON")
    if language == "TOML":
        raise ConfigError(f"{option} {path}: is TOML by its name; allowed are JSON and YAML.")
    try:
        text = _content(path).decode("utf-8-sig")  # editors of Windows begin with a mark
    except UnicodeDecodeError as error:
        raise ConfigError(f"{option} {path}: is not UTF-8 text.") from error
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}.{_files_near(path)}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{option} {schema.show(str(path))}: {error}.") from error
    try:
        data = yaml.load(text, _YAML) if language == "YAML" else _json(text)
    except (RecursionError, TooDeep) as error:
        raise _too_deep(f"{option} {path}") from error
    except Exception as error:  # for `!!bool maybe`, PyYAML lets a KeyError through
        raise ConfigError(f"{option} {path}: is not {language} ({_fault(error)}).") from error
    if not isinstance(data, dict):
        refuse_depth(data, f"{option} {path}")
        raise ConfigError(f"{option} {path}: holds {schema.show(data)}, not a table of fields.")
    return data


_LANGUAGES = {".yaml": "YAML", ".yml": "YAML", ".toml": "TOML"}


_OTHER_NUMBER = re.compile(r"[-+]?(0[0-9_]+$|[0-9_]+:)")
"""010 is 8 to PyYAML, and 1:30 is 90."""


class _YAML(BoundedLoader):
    """YAML as it is meant: 1e-3 is a number, and a key that comes twice is a mistake.

    PyYAML follows version 1.1, where 1e-3 is a text, 010 is 8, and 1:30 is 90; and it keeps the
    last of two equal keys.
    """

    def compose_document(self) -> yaml.Node | None:
        """Compose a document, and refuse keys that come twice, before anything is merged."""
        document = super().compose_document()
        left, seen = [document], set[int]()
        while left:
            node = left.pop()
            if isinstance(node, yaml.CollectionNode) and id(node) not in seen:
                seen.add(id(node))
                if isinstance(node, yaml.MappingNode):
                    _refuse_twice([key for key, _ in node.value])
                    left += [part for pair in node.value for part in pair]
                else:
                    left += node.value
        return document

    def construct_scalar(self, node: yaml.Node) -> Any:
        """Construct a scalar, unless it is a number that 1.1 alone takes for another one."""
        value = super().construct_scalar(node)
        if node.tag in NUMBERS and _OTHER_NUMBER.match(node.value):
            raise yaml.constructor.ConstructorError(
                None,
                None,
                f"{node.value} would be another number, to the base 8 or 60; allowed are digits "
                "without a zero before them or a colon, and text in quotes",
                node.start_mark,
            )
        return value

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Write what `<<` merges into a table; its own value of a key counts, then the first.

        PyYAML 6.0.4 compares keys by where they lie in memory, and lets a later one win.
        """
        merges = [value for key, value in node.value if key.tag == _MERGE]
        own = {_same_key(key): (key, value) for key, value in node.value if key.tag != _MERGE}
        node.value = [*own.values()]  # a table that merges itself ends here
        found: dict[object, tuple[yaml.Node, yaml.Node]] = {}
        for value in reversed(merges):
            for table in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(table, yaml.MappingNode):
                    raise yaml.constructor.ConstructorError(
                        None, None, "<< takes a table, or a list of tables", table.start_mark
                    )
                self.flatten_mapping(table)
                for key, item in table.value:
                    found.setdefault(_same_key(key), (key, item))
        node.value = [*(found | own).values()]
        super().flatten_mapping(node)


_MERGE = "tag:yaml.org,2002:merge"


def _same_key(key: yaml.Node) -> object:
    return (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else id(key)


def _refuse_twice(keys: Sequence[yaml.Node]) -> None:
    seen = set[object]()
    for key in keys:
        if _same_key(key) in seen and key.tag != _MERGE:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {schema.show(key.value)} comes twice", key.start_mark
            )
        seen.add(_same_key(key))


_YAML.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?|\d*\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _content(path: Path) -> bytes:
    """Read a file; what a shell pipes in, as `<(jq ...)` does, is one that lies in /dev."""
    if path.is_absolute() and path.parts[1:2] == ("dev",):
        with path.open("rb") as file:
            return at_most(file, MOST_BYTES, path)
    return read_bytes(path, MOST_BYTES)


def _json(text: str) -> Any:
    """Read JSON as it is meant: a key that comes twice is a mistake. Python keeps the last."""

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            times = Counter(key for key, _ in pairs)
            twice = next(key for key, count in times.items() if count > 1)
            raise ConfigError(f"the key {schema.show(twice)} comes twice")
        return found

    return parse_json(text, most_digits=MOST_DIGITS, pairs=table)


def _files_near(path: Path) -> str:
    kind = path.suffix or ".json"
    try:
        near = sorted(other.name for other in path.parent.iterdir() if other.suffix == kind)
    except OSError:
        near = []
    shipped = names() if not path.suffix else []
    return (
        suggest(path.name, near)
        or suggest("/".join(path.parts[-2:]), shipped)
        or (f" Files there: {', '.join(near)}." if near else "")
    )


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def refuse_depth(data: object, where: str, most: int = MOST_LEVELS) -> None:
    """Refuse what recursion could not get through: very deep tables, and YAML's circular ones.

    Parameters
    ----------
    data
        Nested tables and lists.
    where
        What holds them, for the message.
    most
        Levels that are allowed.

    Raises
    ------
    ConfigError
        If there are more than `most` levels.
    """
    if deeper_than(data, most):
        raise _too_deep(where, most)


def _too_deep(where: str, most: int = MOST_LEVELS) -> ConfigError:
    return ConfigError(f"{where}: is nested too deeply; allowed are {most} levels.")
