"""The fields that an experiment has, which depend on its attack, data poison and defense."""

import dataclasses
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, join, suggest
from entity.defenses import ALIASES, DEFENSES
from entity.poisons import POISONS

ATTACK = "client.attack"
"""Path of the attack's table."""
DEFENSE = "server.defense"
"""Path of the defense's table."""
ARGS = "server.defense.defense_args"
"""Path of the settings of one defense."""
CLASSES = (f"{ATTACK}.target_class", f"{ATTACK}.victim_class")
"""Fields that are a class by its number, and take its name, too."""

OTHER_NAMES = {
    "defense": f"{DEFENSE}.type",
    DEFENSE: f"{DEFENSE}.type",
    "data_root": "settings.datasets_path",
}
"""Other names of a field. The field `attack`, for null, takes the name of an attack, too."""

LIKELY = {
    "alpha": "dirichlet_alpha",
    "epochs": "num_epochs",
    "clients": "federation.size",
    "wandb": "trackers",
}
"""What is most likely meant by a name that no field of the federation has."""


class Field(NamedTuple):
    """One field of the schema, as the command line knows it."""

    path: str
    kind: Any
    doc: str
    default: Any
    """`dataclasses.MISSING` where the field is required."""


SHIPPED = frozenset((*ATTACKS, *POISONS, *DEFENSES))
"""Names of methods of the project itself: this is imported before any plugin is loaded."""


def fields(tables: Mapping[str, Any], *, shipped: bool = False) -> list[Field]:
    """Return every field that an experiment of these types has, in the order of the schema.

    Parameters
    ----------
    tables
        The experiment.
    shipped
        Leave out those of methods of plugins, which are known only where these are loaded.
    """
    listed = [*_fields_below(ExperimentConfig, "")]
    attack, defense = table_at(tables, "client", "attack"), table_at(tables, "server", "defense")
    for registry, name, where in (
        (ATTACKS, attack.get("type"), ATTACK),
        (POISONS, attack.get("poison", "pixel"), ATTACK),
        (DEFENSES, defense.get("type", "undefended"), ARGS),
    ):
        entry = _entry(registry, name)
        if entry is not None and (name in SHIPPED or not shipped):
            listed += _fields_below(entry.hyperparameters, where)
    return listed


def _path(name: str) -> str:
    """Return the path of a field by another name of it; any other name as it is."""
    if name in ("attack", ATTACK):  # the table, which may be null, stands for its type
        return f"{ATTACK}.type"
    return OTHER_NAMES.get(name, name)


def is_of_defense(path: str) -> bool:
    """Whether a field is one of the chosen defense's own settings."""
    return path.startswith(f"{ARGS}.")


def same_field(one: str, other: str) -> bool:
    """Say whether two names may mean one field: either may leave out its first tables.

    Examples
    --------
    >>> same_field("defense", "defense.type"), same_field("client.lr", "server.lr")
    (True, False)
    >>> same_field("attack", "client.attack.type"), same_field("model", "defense_args.model")
    (True, False)
    """
    first, second = _path(one), _path(other)
    if first in _WHOLE or second in _WHOLE:
        return first == second
    return f".{first}".endswith(f".{second}") or f".{second}".endswith(f".{first}")


def longest_name(one: str, other: str) -> str:
    """Return what two names of one field mean, as far as they say it."""
    return max(_path(one), _path(other), key=len)


_WHOLE = frozenset(schema.hints(ExperimentConfig))
"""Names that leave out nothing: they mean no field of a table."""


def all_names() -> set[str]:
    """Return the names of all fields, of every attack, data poison and defense, without tables."""
    named = {field.path.rpartition(".")[2] for field in fields({})} | set(OTHER_NAMES)
    for registry in (ATTACKS, POISONS, DEFENSES):
        for entry in registry.values():
            named |= set(schema.hints(entry.hyperparameters))
    return named


def every_field() -> list[tuple[Field, str]]:
    """Return the fields of all experiments, each with the methods that have it; "" for all."""
    found = [(field, "") for field in _fields_below(ExperimentConfig, "")]
    owners: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], Field] = {}
    for registry, where in ((ATTACKS, ATTACK), (POISONS, ATTACK), (DEFENSES, ARGS)):
        for name, entry in registry.items():
            for field in _fields_below(entry.hyperparameters, where):
                key = field.path, field.doc
                first.setdefault(key, field)
                owners.setdefault(key, []).append(name)
    return found + [(field, ", ".join(owners[key])) for key, field in first.items()]


def fields_of(defense: str, attack: str, poison: str) -> list[Field]:
    """Return the fields of an experiment with these types.

    Parameters
    ----------
    defense, attack, poison
        Names in the registries; an old name of a defense will do.

    Raises
    ------
    ConfigError
        If there is no such defense, attack or poison.
    """
    defense = ALIASES.get(defense.lower(), defense.lower())
    for registry, name, kind in (
        (DEFENSES, defense, "defense"),
        (ATTACKS, attack, "attack"),
        (POISONS, poison, "poison"),
    ):
        registered(registry, name, f"--{kind}")
    chosen = {"type": attack, "poison": poison}
    return fields({"client": {"attack": chosen}, "server": {"defense": {"type": defense}}})


def registered(registry: Mapping[str, Any], name: object, where: str) -> Any:
    """Return an entry of a registry.

    Parameters
    ----------
    registry
        Attacks, data poisons or defenses by name.
    name
        The name that the user gave.
    where
        Path of the field that holds it, for the message.

    Raises
    ------
    ConfigError
        If there is no such entry; names the nearest one.
    """
    if (entry := _entry(registry, name)) is not None:
        return entry
    hint = suggest(schema.key_text(name), registry) or f" Allowed: {', '.join(registry)}."
    for other, said in ((ATTACKS, "an attack: attack"), (POISONS, "a data poison: poison")):
        if registry is not other and registry is not DEFENSES and _entry(other, name) is not None:
            hint = f" It is {said} = {name}."
    raise ConfigError(f"{where} = {schema.show(name)} is unknown.{hint}")


def _entry(registry: Mapping[str, Any], name: object) -> Any:
    return registry.get(name) if isinstance(name, str) else None


def table_at(tables: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """Return a nested table; an empty one where there is none."""
    value: Any = tables
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


@cache
def _fields_below(cls: type, where: str) -> tuple[Field, ...]:
    try:
        docs = schema.docs(cls)
    except OSError:  # defined in a notebook or on standard input, which has no source to read
        docs = {}
    kinds = schema.hints(cls)
    listed: list[Field] = []
    for item in dataclasses.fields(cls):
        path = join(where, item.name)
        if path in (f"{ATTACK}.args", f"{ATTACK}.poison_args", ARGS):
            continue  # their own fields stand in their place
        kind = kinds[item.name]
        nested = _nested(kind)
        if path == ATTACK:  # `--client.attack null` is the one override of a whole table
            kind = None | str
        elif path in CLASSES:
            kind = kind | str
        if nested is None or path == ATTACK:
            listed.append(Field(path, kind, docs.get(item.name, ""), item.default))
        if nested is not None:
            listed += _fields_below(nested, path)
    return tuple(listed)


def _nested(kind: Any) -> type | None:
    for option in (kind, *schema.get_args(kind)):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return option
    return None
