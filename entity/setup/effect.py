"""Which fields of an experiment do nothing, as the rest of it makes them idle.

`needs` says on what each field depends. One that is given by name and idle is refused; what tells
runs apart does not name idle fields.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.schema import ConfigError, flatten, show
from entity.poisons import POISONS
from entity.setup.field_list import ARGS, ATTACK, fields, table_at
from entity.setup.needs import (
    ATTACKED,
    FIELDS,
    NOTHING,
    OF_ATTACKS,
    OF_DEFENSES,
    OF_POISONS,
    POISONERS,
    Needs,
    Values,
    mend_of,
)


class IdleField(ConfigError):
    """Fields were given that do nothing.

    Parameters
    ----------
    text
        The refusal of the first of them.
    names
        All of them, as they were given.
    """

    def __init__(self, text: str, names: Iterable[str]) -> None:
        super().__init__(text)
        self.names = frozenset(names)


def needs_of(path: str, values: Values) -> Needs:
    """Return what a field needs in an experiment.

    Parameters
    ----------
    path
        Its dotted path.
    values
        The experiment's fields, for the types of its attack, data poison and defense.
    """
    if path in FIELDS:
        return FIELDS[path]
    name = path.rpartition(".")[2]
    if path == f"{ARGS}.{name}":
        return OF_DEFENSES.get(str(values.get("server.defense.type")), {}).get(name, ())
    if path != f"{ATTACK}.{name}" or name == "type":
        return ()
    attack, poison = (str(values.get(f"{ATTACK}.{key}")) for key in ("type", "poison"))
    if attack in ATTACKS and name in schema.hints(ATTACKS[attack].hyperparameters):
        return (*POISONERS, *OF_ATTACKS.get(attack, {}).get(name, ()))
    if poison in POISONS and name in schema.hints(POISONS[poison].hyperparameters):
        return (ATTACKED, *OF_POISONS.get(poison, {}).get(name, ()))
    return ()


def idle(values: Values) -> frozenset[str]:
    """Return the paths of the fields that do nothing, those that ask for nothing among them.

    Parameters
    ----------
    values
        All fields of an experiment by dotted path, of a checked one or of a record.

    Examples
    --------
    >>> sorted(idle({"client.IID": True, "client.dirichlet_alpha": 0.5, "client.lr": 0.1}))
    ['client.dirichlet_alpha']
    """
    return frozenset(
        path for path in values if not all(need(values) for need in needs_of(path, values))
    )


def effective(values: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of an experiment, by dotted path, without those that do nothing."""
    every = dict(values)
    without = idle(every)
    return {path: value for path, value in every.items() if path not in without}


def blanked(values: Values) -> dict[str, Any]:
    """Return the fields of an experiment, by dotted path, with None for those that do nothing."""
    without = idle(values)
    return {path: None if path in without else value for path, value in values.items()}


def refuse_idle(tables: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Refuse fields that were given by name and do nothing.

    Parameters
    ----------
    tables
        The checked experiment, as `to_json` returns it.
    given
        The name of each given field, by its path.

    Raises
    ------
    IdleField
        With the field, its value and what it needs.
    """
    values = dict(flatten(tables))
    defaults = {field.path: field.default for field in fields(tables)}
    found = idle(values)
    refused = {
        path: name
        for path, name in given.items()
        if path in found
        and NOTHING not in needs_of(path, values)  # the original's command lines stay valid
        and not _asks_for_nothing(values[path], defaults.get(path))
    }
    for path in refused:
        raise IdleField(_refusal(path, values), refused.values())


def refuse_without_attack(tables: Mapping[str, Any], given: Mapping[str, str]) -> None:
    """Refuse fields of an attack that were given by name where there is none.

    Parameters
    ----------
    tables
        An experiment's tables, not yet typed.
    given
        The name of each given field, by its path.

    Raises
    ------
    IdleField
        With the field and the way to an attack.
    """
    attack = table_at(tables, "client", "attack")
    if "type" in attack:
        return
    refused = {
        path: name
        for path, name in given.items()
        if path.startswith(f"{ATTACK}.") and path != f"{ATTACK}.type"
    }
    for path in refused:
        value = show(attack.get(path.rpartition(".")[2]))
        raise IdleField(
            f"{path} = {value}: does nothing without {ATTACKED.mend}; give that, too, or leave "
            "this out.",
            refused.values(),
        )


def _asks_for_nothing(value: object, default: object) -> bool:
    """Say whether a value leaves something off that is off by default: null, false or 0."""
    return not value and value == default


def _refusal(path: str, values: Values) -> str:
    said = f"{path} = {show(values[path])}: does nothing"
    missing = [need for need in needs_of(path, values) if not need(values)]
    mends = " and ".join(mend_of(need, values) for need in missing)
    return f"{said} without {mends}; give that, too, or leave this out."
