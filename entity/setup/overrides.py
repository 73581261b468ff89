"""Fields that are given by name, on the command line or in a program, over a file's tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from entity.config import schema
from entity.config.schema import ConfigError, suggest
from entity.defenses import ALIASES
from entity.setup.field_list import ATTACK, DEFENSE, Field, fields
from entity.setup.foreign_fields import forget_foreign_args, forget_foreign_attack_fields


class BadFieldName(ConfigError):
    """A name that means no field, or several, or that lacks its value.

    Parameters
    ----------
    text
        The refusal.
    as_option
        The same where fields are options, with two dashes before their names.
    """

    def __init__(self, text: str, as_option: str = "") -> None:
        super().__init__(text)
        self.as_option = ConfigError(as_option or text)


def override(tables: dict[str, Any], given: Iterable[tuple[str, str | None]]) -> None:
    """Write fields into nested tables, in place.

    Parameters
    ----------
    tables
        An experiment's tables.
    given
        (name, text) pairs in order, as `resolve.experiment` takes them. Types come first: they
        decide which other fields there are.

    Raises
    ------
    BadFieldName
        If a name is unknown or ambiguous, or lacks a value.
    ConfigError
        If a value is not allowed.
    """
    for name, text in sorted(given, key=_types_first):
        _override_one(tables, name, text)


def field_named(name: str, known: Mapping[str, Field]) -> Field:
    """Return the field that a name means; it may leave out its first tables.

    Parameters
    ----------
    name
        A field's name without dashes, such as `DPR`, `attack.DPR` or `client.attack.DPR`.
    known
        Every field by its path.

    Raises
    ------
    BadFieldName
        If the name is unknown or ambiguous.
    """
    matches = [path for path in known if path == name or path.endswith("." + name)]
    if not matches:
        short = {path.rsplit(".", 1)[-1] for path in known} | set(known)
        hint = suggest(name, short) or " `drop fields` lists them all."
        raise BadFieldName(f"{name} is unknown.{hint}", f"--{name} is unknown.{hint}")
    if len(matches) > 1 and name not in matches:
        paths = sorted(matches)
        raise BadFieldName(
            f"{name} is ambiguous: write {' or '.join(paths)}.",
            f"--{name} is ambiguous: write --{' or --'.join(paths)}.",
        )
    return known[name if name in matches else matches[0]]


def _types_first(given: tuple[str, str | None]) -> int:
    return 0 if given[0].split(".")[-1] in ("type", "attack", "defense", "poison") else 1


def _override_one(tables: dict[str, Any], name: str, text: str | None) -> None:
    field = field_named(name, {field.path: field for field in fields(tables)})
    if text is None:
        if field.kind is not bool:
            lacks = f"{name} needs a value: {schema.describe(field.kind)}."
            raise BadFieldName(lacks, f"--{lacks}")
        text = "true"
    value = schema.parse_text(field.kind, text, field.path)
    *parents, last = field.path.split(".")
    table = tables
    for parent in parents:
        if not isinstance(table.get(parent), dict):
            table[parent] = {}
        table = table[parent]
    table[last] = schema.dump(value)
    if field.path == f"{DEFENSE}.type":
        table[last] = ALIASES.get(str(value).lower(), str(value).lower())
        forget_foreign_args(table)
    elif field.path in (f"{ATTACK}.type", f"{ATTACK}.poison"):
        forget_foreign_attack_fields(table)
