"""Configuration files, read into nested tables."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from entity.config import schema
from entity.config.schema import ConfigError, suggest


def read(path: Path, option: str = "--config") -> dict[str, Any]:
    """Read a configuration as nested tables, from JSON or YAML; see `read_file`."""
    return read_file(path, option)


def read_file(path: Path, option: str) -> dict[str, Any]:
    """Read one file as nested tables, from JSON or YAML.

    Parameters
    ----------
    path
        The file; `.yaml` and `.yml` are YAML, anything else is JSON.
    option
        Where the user named the file, for messages.

    Raises
    ------
    ConfigError
        If there is no such file, or it cannot be parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{option} {path}: is not UTF-8 text.") from error
    except OSError as error:
        raise ConfigError(f"{option} {path}: {error.strerror}.{_files_near(path)}") from error
    except ValueError as error:  # a NUL in the name
        raise ConfigError(f"{option} {schema.show(str(path))}: {error}.") from error
    language = "YAML" if path.suffix in (".yaml", ".yml") else "JSON"
    try:
        data = yaml.load(text, _YAML) if language == "YAML" else json.loads(text)
    except RecursionError as error:
        raise ConfigError(f"{option} {path}: is nested too deeply.") from error
    except Exception as error:  # for `!!bool maybe`, PyYAML lets a KeyError through
        raise ConfigError(f"{option} {path}: is not {language} ({_fault(error)}).") from error
    if not isinstance(data, dict):
        refuse_depth(data, f"{option} {path}")
        raise ConfigError(f"{option} {path}: holds {schema.show(data)}, not a table of fields.")
    return data


class _YAML(yaml.SafeLoader):
    """YAML as it is meant: 1e-3 is a number, and a key that comes twice is a mistake.

    PyYAML follows version 1.1, where 1e-3 is a text, and keeps the last of two equal keys.
    """

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {schema.show(key.value)} comes twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)  # pyright: ignore[reportArgumentType]


_YAML.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?|\d*\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def _files_near(path: Path) -> str:
    kind = path.suffix or ".json"
    try:
        near = sorted(other.name for other in path.parent.iterdir() if other.suffix == kind)
    except OSError:
        return ""
    return suggest(path.name, near) or (f" Files there: {', '.join(near)}." if near else "")


def _fault(error: Exception) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at line {error.lineno}, column {error.colno}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"{error.problem} at line {mark.line + 1}, column {mark.column + 1}"
    return " ".join(str(error).split())


def refuse_depth(data: object, where: str, most: int = 20) -> None:
    """Refuse what recursion could not get through: very deep tables, and YAML's circular ones.

    Raises
    ------
    ConfigError
        If there are more than `most` levels.
    """
    level: list[Any] = [data] if _is_table(data) else []
    for _ in range(most):
        items = [item.values() if isinstance(item, Mapping) else item for item in level]
        inner = [child for item in items for child in item if _is_table(child)]
        level = list({id(child): child for child in inner}.values())  # each shared one once
    if level:
        raise ConfigError(f"{where}: is nested too deeply; allowed are {most} levels.")


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping | list | tuple)
