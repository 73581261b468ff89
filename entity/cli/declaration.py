"""The fields of a configuration, declared to simple-parsing: a dataclass for every table.

The dataclasses of `config/fields.py` are not handed over as they are. With simple-parsing 0.1.9
these promises of the command line would be lost:

- `Annotated[float, Range(0, 1)]` shows as "Annotated", lets 7 pass and is refused as "invalid
  Annotated value". `int | None` refuses null, `str | tuple[...]` never reads a list, and
  `--client.attack null` does not exist. So every option is declared as a text, which
  `setup/overrides.py` reads.
- A name that two tables have (`--batch_size`) silently means the less nested one. Prefixes against
  such conflicts are put before aliases, too (`--attack.attack.type`). So the names are ours.
- A name of one letter gets one dash: `-K`, `-server.defense.defense_args.K`. Then `-s` is taken
  for an abbreviation of the latter in spite of `allow_abbrev=False`.
- The docstring of a field is lost where its annotation spans several lines (`partition`), and
  defaults are not shown where only the given options are wanted. So the help texts are ours.
- What settings an attack or a defense has depends on its type, which a file may give. `subgroups`
  choose a dataclass by an option, not by a file.
"""

import argparse
import dataclasses
import json
import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_origin

import simple_parsing
from simple_parsing.wrappers import DataclassWrapper, FieldWrapper

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import (
    AttackConfig,
    ClientConfig,
    DefenseConfig,
    ExperimentConfig,
    FederationConfig,
    ServerConfig,
    SettingsConfig,
)
from entity.dataset import DATASETS, OWN_DATASETS
from entity.defenses import DEFENSES
from entity.models import MODELS
from entity.poisons import POISONS
from entity.setup.field_list import ARGS, ATTACK, DEFENSE, OTHER_NAMES, Field, is_of_defense

TABLES: dict[str, tuple[str, type | None]] = {
    "": ("experiment", ExperimentConfig),
    "client": ("client", ClientConfig),
    ATTACK: (ATTACK, AttackConfig),
    "server": ("server", ServerConfig),
    DEFENSE: (DEFENSE, DefenseConfig),
    ARGS: ("defense_args", None),
    "federation": ("federation", FederationConfig),
    "settings": ("settings", SettingsConfig),
}
"""Title and dataclass of every table by its path, in the order of the help."""


def registries() -> dict[str, list[str]]:
    """Return the names that a field chooses from, which are no part of its type."""
    return {
        "dataset": [*DATASETS, *OWN_DATASETS, "imagefolder:NAME"],
        "model": [*MODELS, "MODULE:FUNCTION"],
        f"{ATTACK}.type": [*ATTACKS],
        f"{ATTACK}.poison": [*POISONS],
        f"{DEFENSE}.type": [*DEFENSES],
    }


def declare(
    parser: simple_parsing.ArgumentParser, fields: Sequence[Field], owners: Mapping[str, str]
) -> dict[str, list[str]]:
    """Add an option for every field, in groups; a parsed namespace holds the given ones as texts.

    Parameters
    ----------
    parser
        Parser of a command.
    fields
        Every field of the experiment.
    owners
        Whose fields are in a table that depends on a type, by its path, for the title.

    Returns
    -------
    The options of each field by its path, shortest first.
    """
    names = option_names(fields)
    given_only: Any = argparse.SUPPRESS
    for table, (title, cls) in TABLES.items():
        own = [field for field in fields if field.path.rpartition(".")[0] == table]
        if not own:
            continue
        made = dataclasses.make_dataclass(
            f"{title} of {owners[table]}" if table in owners else title,
            [
                (field.path.rpartition(".")[2], str, _option(field, names[field.path]))
                for field in own
            ],
            namespace={"__doc__": (cls.__doc__ or "").splitlines()[0] if cls else " "},
        )
        # Without a module there is no source file, which simple-parsing would parse for every field
        # in search of its docstring.
        made.__module__ = ""
        parser.add_arguments(
            made, table or "experiment", default=given_only, dataclass_wrapper_class=_Table
        )
    return names


def given_texts(options: argparse.Namespace) -> Iterator[tuple[str, str | None]]:
    """Take the given fields out of a parsed namespace, as path and text; None for no value."""
    for table in TABLES:
        values: Mapping[str, Any] = vars(options).pop(table or "experiment", None) or {}
        for name, text in values.items():
            yield schema.join(table, name), _list(text) if isinstance(text, list) else text


def _list(texts: list[str]) -> str | None:
    """Write several words as a list; a single one may be a list already."""
    if len(texts) == 1 and texts[0].startswith("["):
        return texts[0]
    return json.dumps([schema.parse_text(Any, text, "") for text in texts]) if texts else None


def option_names(fields: Sequence[Field]) -> dict[str, list[str]]:
    """Return the options of each field by its path, shortest first.

    A name may leave out its first tables where that stays unambiguous; a setting of the defense
    alone makes none ambiguous (`overrides.field_named`).

    Examples
    --------
    >>> paths = ["client.lr", "client.attack.lr"]
    >>> option_names([Field(path, float, "", 0.1) for path in paths])
    {'client.lr': ['--client.lr'], 'client.attack.lr': ['--attack.lr', '--client.attack.lr']}
    """
    paths = [field.path for field in fields]
    owners = Counter(name for path in paths for name in _endings(path))
    common = Counter(name for path in paths if not is_of_defense(path) for name in _endings(path))
    names: dict[str, list[str]] = {}
    for path in paths:
        rivals = owners if is_of_defense(path) else common
        own = [name for name in _endings(path) if rivals[name] == 1 or name == path]
        other = [name for name, of in OTHER_NAMES.items() if of == path and "." not in name]
        names[path] = [f"--{name}" for name in (*own[:1], *other, *own[1:])]
    return names


def _endings(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[start:]) for start in reversed(range(len(parts)))]


def _option(field: Field, names: list[str]) -> Any:
    text = [" ".join(part.split()) for part in field.doc.split("\n\n")]
    allowed = _allowed(field)
    if field.default is dataclasses.MISSING:
        rest = "No default."
    else:
        default = field.default
        rest = f"Default: {default if isinstance(default, str) else schema.show(default)}."
    text.append(f"{allowed[0].upper()}{allowed[1:]}. {rest}")
    many = get_origin(field.kind) is tuple
    return simple_parsing.field(
        default=None,
        alias=names,
        help="\n".join(text).replace("%", "%%"),
        type=str,
        nargs="*" if many else "?",  # without a value it means true, or is refused in our words
        metavar="VALUE",
    )


def _allowed(field: Field) -> str:
    """Say what a field takes: names of a registry where it chooses among methods or data."""
    if field.path == ATTACK:
        return f"null, for no attack, or one of {', '.join(ATTACKS)}"
    if (known := registries().get(field.path)) is not None:
        return f"one of {', '.join(known)}"
    return schema.describe(field.kind)


class _Option(FieldWrapper):
    @property
    def option_strings(self) -> list[str]:
        return self.aliases


class _Table(DataclassWrapper[Any]):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, field_wrapper_class=_Option, **kwargs)

    @property
    def title(self) -> str:
        return self.dataclass.__name__


class HelpFormatter(argparse.HelpFormatter):
    """Help with the text of an option below it, without names that leave out some tables only."""

    def __init__(self, prog: str, **kwargs: Any) -> None:
        super().__init__(prog, max_help_position=6, **kwargs)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        names = action.option_strings
        if not names or action.metavar != "VALUE":
            return super()._format_action_invocation(action)
        plain = [name for name in names if "." not in name]
        shown = list(dict.fromkeys((*(plain or names[:1]), names[-1])))
        line = ", ".join(shown)
        return line if len(line) <= self._width - 2 else ",\n  ".join(shown)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return [line for part in text.splitlines() for line in textwrap.wrap(part, width)]
