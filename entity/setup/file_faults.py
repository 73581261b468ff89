"""Faults of a file that another one extends, told with its own name.

A whole configuration is checked once its files are laid over one another, when nobody knows any
more which of them said what. So what is wrong for any attack, data poison and defense is refused
before, file by file.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, flatten, suggest, unknown
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.setup.field_list import ARGS, ATTACK, fields_of
from entity.setup.plugins import generation


def refuse_other_names(tables: Mapping[str, Any], key: str, where: str) -> None:
    """Refuse a key that is meant for one beside the fields, such as `extend` for `extends`.

    Parameters
    ----------
    tables
        What a file holds.
    key
        The key that may be meant.
    where
        What holds the tables, for the message.

    Raises
    ------
    ConfigError
        With the key that is meant.
    """
    known = [*schema.hints(ExperimentConfig), key]
    for name in tables:
        if name not in known and (hint := suggest(str(name), known)) == f" Did you mean {key}?":
            raise ConfigError(f"{where}: {schema.key_text(name)} is unknown.{hint}")


def refuse_faults(tables: Mapping[str, Any], key: str, where: str) -> None:
    """Refuse names that no experiment has, and values that none allows.

    Parameters
    ----------
    tables
        What a file holds, of which much may be missing.
    key
        The one key beside the fields.
    where
        What holds the tables, for the message.

    Raises
    ------
    ConfigError
        With the name or the value.
    """
    known = _kinds(generation())
    for path, value in flatten(_with_texts(tables)):
        if path == key:
            continue
        if path not in known:
            _refuse_name(path, known, where)
        elif value is not None or not path.startswith((f"{ATTACK}.", f"{ARGS}.")):
            # The original leaves the fields of other methods null.
            _refuse_value(known[path], value, path, where)


def _refuse_name(path: str, known: Iterable[str], where: str) -> None:
    """Refuse a path at its first part that leads nowhere; a table that is null leads somewhere."""
    ways = [name.split(".") for name in known]
    parts = path.split(".")
    for length in range(1, len(parts) + 1):
        beside = {way[length - 1] for way in ways if way[: length - 1] == parts[: length - 1]}
        if parts[length - 1] not in beside:
            name = ".".join(parts[:length])
            raise ConfigError(f"{where}: {unknown(name, parts[length - 1], sorted(beside))}")
        ways = [way for way in ways if len(way) > length and way[:length] == parts[:length]]


def _refuse_value(kinds: list[Any], value: object, path: str, where: str) -> None:
    refusals: list[ConfigError] = []
    for kind in kinds:
        try:
            schema.convert(kind, value, path)
        except ConfigError as error:
            refusals.append(error)
    if len(refusals) == len(kinds):
        raise ConfigError(f"{where}: {refusals[-1]}")


def _with_texts(tables: Mapping[Any, Any]) -> dict[str, Any]:
    """Return tables whose keys are texts; YAML has other ones."""
    return {
        schema.key_text(name): _with_texts(value) if isinstance(value, Mapping) else value
        for name, value in tables.items()
    }


@cache
def _kinds(generation: int) -> dict[str, list[Any]]:
    """Return the types that a field has in any experiment, by its path."""
    found: dict[str, list[Any]] = {}
    choices = [(defense, "badnets", "pixel") for defense in DEFENSES]
    choices += [("undefended", attack, "pixel") for attack in ATTACKS]
    choices += [("undefended", "badnets", poison) for poison in POISONS]
    for choice in choices:
        for field in fields_of(*choice):
            kinds = found.setdefault(field.path, [])
            if field.kind not in kinds:
                kinds.append(field.kind)
    return found
