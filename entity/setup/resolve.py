"""From a file and fields given by name to a checked, complete experiment.

This is where the schema meets the registries: which fields an attack or a defense has depends on
its type. Everything is checked here, before any data is touched.
"""

import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import AttackConfig, ExperimentConfig
from entity.config.schema import ConfigError, key_text, unknown
from entity.defenses import ALIASES, DEFENSES
from entity.models import ALIASES as MODEL_ALIASES
from entity.poisons import POISONS
from entity.setup.checks import check
from entity.setup.class_names import number_classes
from entity.setup.effect import IdleField, refuse_idle, refuse_without_attack
from entity.setup.field_list import (
    ARGS,
    ATTACK,
    DEFENSE,
    Field,
    fields,
    fields_of,
    registered,
    table_at,
)
from entity.setup.held_out import with_room
from entity.setup.identity import default_name, fingerprint, identity, to_json
from entity.setup.initial import located_model
from entity.setup.overrides import ForeignField, as_text, override
from entity.setup.plugins import located, use, used
from entity.setup.read import read, refuse_depth

__all__ = [
    "Field",
    "check",
    "default_name",
    "experiment",
    "fields",
    "fields_of",
    "fingerprint",
    "identity",
    "read",
    "refuse_depth",
    "to_json",
    "without_idle",
]


PLUGINS = "plugins"


def experiment(
    data: Mapping[str, Any], overrides: Sequence[tuple[str, object]] = ()
) -> ExperimentConfig:
    """Build and check an experiment.

    Parameters
    ----------
    data
        Nested tables, as `read` returns them.
    overrides
        (name, text) pairs from the command line, in order; a name may leave out its first
        tables where that stays unambiguous, and a text of None means true. Numbers and lists of
        a program, such as ("rounds", 3), count as their text. The environment variable DROP_DATA
        is one of them, before all others. Plugins are added to those of the file.

    Raises
    ------
    ConfigError
        One sentence for the user. An `IdleField` if a field among the overrides does nothing in
        this experiment, and a `ForeignField` if it is of a method that is not chosen.
    """
    if not isinstance(data, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"the config = {schema.show(data)}: expected a table of fields.")
    refuse_depth(data, "the config")
    tables = _with_current_names(deepcopy(dict(data)))
    plugins = _loaded(tables, overrides)
    if root := os.environ.get("DROP_DATA"):
        override(tables, [("settings.datasets_path", root)])
    given = override(tables, [(name, text) for name, text in overrides if name != PLUGINS])
    tables = _with_current_names(tables)
    refuse_without_attack(tables, given)
    number_classes(tables)
    config = _typed(tables)
    config = replace(config, plugins=used(config, plugins), initial=located_model(config.initial))
    config = with_room(config)
    check(config)
    if given:
        refuse_idle(to_json(config), given)
    return config


def _loaded(tables: dict[str, Any], overrides: Sequence[tuple[str, object]]) -> tuple[str, ...]:
    """Load the plugins of a file and of the command line, on which all other fields depend."""
    located(tables, Path(), "the config")
    return use([*(tables.get(PLUGINS) or ()), *named_plugins(overrides)])


def named_plugins(overrides: Sequence[tuple[str, object]]) -> list[str]:
    """Return the plugins among fields given by name, each one or a list in brackets."""
    entries: list[str] = []
    for name, value in overrides:
        if name == PLUGINS and value is not None:
            text = as_text(name, value)
            many = text.startswith("[")
            listed = schema.parse_text(tuple[str, ...], text, PLUGINS) if many else [text]
            entries += [str(each) for each in listed if each]
    return entries


def without_idle(
    data: Mapping[str, Any], overrides: Sequence[tuple[str, object]]
) -> tuple[ExperimentConfig, dict[str, str]]:
    """Build an experiment of a grid, where a field may do nothing beside some values of another.

    Parameters
    ----------
    data, overrides
        As `experiment` takes them.

    Returns
    -------
    tuple
        The experiment without the overrides that do nothing in it, and why for each of those.

    Raises
    ------
    ConfigError
        As `experiment`, but for such overrides.
    """
    idle: dict[str, str] = {}
    while True:
        kept = [(name, text) for name, text in overrides if name not in idle]
        try:
            return experiment(data, kept), idle
        except IdleField as error:
            idle.update(dict.fromkeys(error.names, str(error)))
        except ForeignField as error:
            idle[error.name] = str(error)


def _with_current_names(tables: dict[str, Any]) -> dict[str, Any]:
    if isinstance(model := tables.get("model"), str):
        tables["model"] = MODEL_ALIASES.get(model, model)
    server = tables.get("server")
    if isinstance(server, dict):
        if server.get("defense") is None:
            server["defense"] = {"type": "undefended"}
        defense = server["defense"]
        if isinstance(defense, dict) and isinstance(defense.get("type"), str):
            defense["type"] = ALIASES.get(defense["type"].lower(), defense["type"].lower())
    client = tables.get("client")
    if isinstance(client, dict):
        attack = client.get("attack")
        if isinstance(attack, dict) and attack.get("type", "") in (None, "None", "none"):
            client["attack"] = None
    return tables


def _typed(tables: dict[str, Any]) -> ExperimentConfig:
    tables = deepcopy(tables)
    attack_args: tuple[Any, Any] = (None, None)
    attack = table_at(tables, "client", "attack")
    if isinstance(attack, dict) and attack:
        attack_args = _take_attack_args(attack)
    defense = table_at(tables, "server", "defense")
    raw_args = defense.pop("defense_args", None) if isinstance(defense, dict) else None
    config = schema.load(ExperimentConfig, tables)
    server = registered(DEFENSES, config.server.defense.type, f"{DEFENSE}.type")
    args = schema.load(server.hyperparameters, {} if raw_args is None else raw_args, ARGS)
    defense_config = replace(config.server.defense, defense_args=args)
    client = config.client
    if client.attack is not None:
        own, poison = attack_args
        client = replace(client, attack=replace(client.attack, args=own, poison_args=poison))
    return replace(config, client=client, server=replace(config.server, defense=defense_config))


def _take_attack_args(attack: dict[str, Any]) -> tuple[Any, Any]:
    """Take the fields of one attack or one data poison alone out of the table, and type them."""
    if "type" not in attack:
        schema.load(AttackConfig, attack, ATTACK)  # says so, or that a key is misspelt
    attack_type = registered(ATTACKS, attack.get("type"), f"{ATTACK}.type").hyperparameters
    poison = registered(POISONS, attack.get("poison", "pixel"), f"{ATTACK}.poison")
    kinds = (attack_type, poison.hyperparameters)
    if common := sorted({*schema.hints(attack_type)} & {*schema.hints(poison.hyperparameters)}):
        raise ConfigError(
            f"{ATTACK}.{common[0]} is a setting of the attack {attack['type']} and of the data "
            f"poison {attack.get('poison', 'pixel')}, which would be one field; rename one of them."
        )
    own = [name for kind in kinds for name in schema.hints(kind)]
    _drop_empty_fields_of_others(attack, own)
    taken = {key: attack.pop(key) for key in own if key in attack}
    first, second = (
        schema.load(kind, {k: v for k, v in taken.items() if k in schema.hints(kind)}, ATTACK)
        for kind in kinds
    )
    return first, second


def _drop_empty_fields_of_others(attack: dict[str, Any], own: Sequence[str]) -> None:
    """Drop the fields of other attacks and data poisons, which the original leaves null."""
    common = [name for name in schema.hints(AttackConfig) if name not in ("args", "poison_args")]
    owners = {
        name: owner
        for registry in (ATTACKS, POISONS)
        for owner, entry in registry.items()
        for name in schema.hints(entry.hyperparameters)
    }
    for key in [key for key in attack if key not in common and key not in own]:
        if attack[key] is not None and key in owners:
            raise ConfigError(f"{ATTACK}.{key} belongs to {owners[key]}, which is not chosen.")
        if attack[key] is not None:
            name = key_text(key)
            raise ConfigError(unknown(f"{ATTACK}.{name}", name, [*common, *own]))
        attack.pop(key)
