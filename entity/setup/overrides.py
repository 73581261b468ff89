"""Fields that are given by name, on the command line or in a program, over a file's tables."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.schema import ConfigError, suggest
from entity.defenses import ALIASES, DEFENSES
from entity.poisons import POISONS
from entity.setup.field_list import (
    ARGS,
    ATTACK,
    CLASSES,
    DEFENSE,
    LIKELY,
    OTHER_NAMES,
    Field,
    fields,
    is_of_defense,
)
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


class ForeignField(BadFieldName):
    """A name that only attacks, data poisons or defenses have that are not chosen.

    Parameters
    ----------
    name
        The name as it was given.
    text
        The refusal.
    as_option
        The same where fields are options, with two dashes before their names.
    """

    def __init__(self, name: str, text: str, as_option: str) -> None:
        super().__init__(text, as_option)
        self.name = name


def override(tables: dict[str, Any], given: Iterable[tuple[str, object]]) -> dict[str, str]:
    """Write fields into nested tables, in place; return the name of each by its path.

    Parameters
    ----------
    tables
        An experiment's tables.
    given
        (name, text) pairs in order, as `resolve.experiment` takes them; other values of a program
        will do. Types come first: they decide which other fields there are.

    Raises
    ------
    BadFieldName
        If a name is unknown or ambiguous, or lacks a value.
    ConfigError
        If a value is not allowed.
    """
    pairs = [(name, value if value is None else as_text(name, value)) for name, value in given]
    return {
        _override_one(tables, name, text): name for name, text in sorted(pairs, key=_types_first)
    }


def as_text(name: str, value: object) -> str:
    """Return a value as the command line would take it; a text is one already.

    Parameters
    ----------
    name
        The field's, for the refusal.
    value
        Of a program: scalars of NumPy and PyTorch count as numbers, paths as texts.

    Raises
    ------
    ConfigError
        For anything else that JSON does not have.

    Examples
    --------
    >>> as_text("rounds", 3), as_text("defense", "flame"), as_text("attack", None)
    ('3', 'flame', 'null')
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} = {schema.show(value)}: allowed are numbers, texts, True, False, None, and "
            "lists of them."
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)  # pyright: ignore[reportUnknownVariableType]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError


def field_named(name: str, known: Mapping[str, Field]) -> Field:
    """Return the field that a name means; it may leave out its first tables.

    Of several, one of the defense's own settings needs its table: in the original, whose commands
    stay valid, nobody could give those by name.

    Parameters
    ----------
    name
        A field's name without dashes, such as `DPR`, `attack.DPR` or `client.attack.DPR`.
    known
        Every field by its path.

    Raises
    ------
    BadFieldName
        If the name is unknown or ambiguous, or of a method that is not chosen.
    """
    name = OTHER_NAMES.get(name, name)
    matches = [path for path in known if path == name or path.endswith("." + name)]
    likely = f" Did you mean {LIKELY[name]}?" if name in LIKELY else ""
    if not matches and (owners := _owners(name)):
        said = f"{name} belongs to {owners}, which is not chosen.{likely}"
        raise ForeignField(name, said, f"--{said}")
    if not matches:
        short = {path.rsplit(".", 1)[-1] for path in known} | set(known) | set(OTHER_NAMES)
        hint = likely or suggest(name, short) or " `drop fields` lists them all."
        raise BadFieldName(f"{name} is unknown.{hint}", f"--{name} is unknown.{hint}")
    if len(common := [path for path in matches if not is_of_defense(path)]) == 1:
        return known[common[0]]
    if len(matches) > 1 and name not in matches:
        paths = sorted(matches)
        raise BadFieldName(
            f"{name} is ambiguous: write {' or '.join(paths)}.",
            f"--{name} is ambiguous: write --{' or --'.join(paths)}.",
        )
    return known[name if name in matches else matches[0]]


def _owners(name: str) -> str:
    """Return which attacks, data poisons or defenses have a field of that name."""
    named = [
        owner
        for registry, where in ((DEFENSES, ARGS), (ATTACKS, ATTACK), (POISONS, ATTACK))
        for owner, entry in registry.items()
        for own in schema.hints(entry.hyperparameters)
        if f".{where}.{own}".endswith(f".{name}")
    ]
    return " or ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)


def _types_first(given: tuple[str, str | None]) -> int:
    return 0 if given[0].split(".")[-1] in ("type", "attack", "defense", "poison") else 1


def _refuse_table(name: str, text: str | None, known: Mapping[str, Field]) -> None:
    """Refuse to give a whole table at once; its fields are given one by one.

    Those of the attack and the defense may be the name of one, or null for none.
    """
    tables = {path.rpartition(".")[0] for path in known} | {ARGS}
    tables |= {table.rpartition(".")[0] for table in tables}
    named = [path for path in sorted(tables - {""}) if f".{path}".endswith(f".{name}")]
    value = "" if text is None else schema.read_text(text)
    by_name = named in ([ATTACK], [DEFENSE]) and (value is None or isinstance(value, str))
    if not named or (by_name and text is not None):
        return
    [path] = named
    own = [field for field in known if field.startswith(f"{path}.")]
    value = "" if text is None else f" = {schema.show(value)}"
    kind = {ATTACK: "attack", DEFENSE: "defense"}.get(path)
    allowed = f"null, for no {kind}, the name of one, and its fields" if kind else "its fields"
    which = f"such as {' or '.join(own[:2])}" if own else "of which the chosen defense has none"
    raise ConfigError(f"{path}{value}: is a table; allowed are {allowed} one by one, {which}.")


def _override_one(tables: dict[str, Any], name: str, text: str | None) -> str:
    known = {field.path: field for field in fields(tables)}
    _refuse_table(name, text, known)
    field = field_named(name, known)
    if text is not None and field.path == ATTACK and schema.read_text(text) is not None:
        field = known[f"{ATTACK}.type"]  # `attack=neurotoxin`
    if text is None:
        if field.kind is not bool:
            lacks = f"{name} needs a value: {schema.describe(field.kind)}."
            raise BadFieldName(lacks, f"--{lacks}")
        text = "true"
    read = schema.read_text(text)
    several = field.path in CLASSES and isinstance(read, list | dict)  # refused with their names
    value = read if several else schema.parse_text(field.kind, text, field.path)
    *parents, last = field.path.split(".")
    table = tables
    for parent in parents:
        if not isinstance(table.get(parent), dict):
            table[parent] = {}
        table = table[parent]
    table[last] = schema.dump(value)
    if field.path == f"{DEFENSE}.type":
        chosen = str(value).lower().replace("null", "none")
        table[last] = ALIASES.get(chosen, chosen)
        forget_foreign_args(table)
    elif field.path in (f"{ATTACK}.type", f"{ATTACK}.poison"):
        forget_foreign_attack_fields(table)
    return field.path
