"""From a file and command-line overrides to a checked, complete experiment.

This is where the schema meets the registries: which fields an attack or a defense has depends on
its type. Everything is checked here, before any data is touched.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import (
    APPROXIMATE,
    RUNTIME_SETTINGS,
    AttackConfig,
    DefenseConfig,
    ExperimentConfig,
)
from entity.config.schema import ConfigError, flatten, join, suggest, unknown
from entity.dataset import Source, source_of
from entity.defenses import ALIASES, DEFENSES
from entity.models import find
from entity.poisons import POISONS
from entity.server import Setting
from entity.setup.read import read, refuse_depth

_ATTACK = "client.attack"
_DEFENSE = "server.defense"
_ARGS = "server.defense.defense_args"


ERA = 1
"""A part of every identity, which is made of what differs from the defaults: to be raised when the
default of a field changes, so that runs from before are not taken for runs with the new one."""


class Field(NamedTuple):
    """One field of the schema, as the command line knows it."""

    path: str
    kind: Any
    doc: str
    default: Any
    """`dataclasses.MISSING` where the field is required."""


def experiment(
    data: Mapping[str, Any], overrides: Sequence[tuple[str, str | None]] = ()
) -> ExperimentConfig:
    """Build and check an experiment.

    Parameters
    ----------
    data
        Nested tables, as `read` returns them.
    overrides
        (name, text) pairs from the command line, in order; a name may leave out its first
        tables where that stays unambiguous, and a text of None means true. The environment
        variable DROP_DATA is one of them, before all others.

    Raises
    ------
    ConfigError
        One sentence for the user.
    """
    refuse_depth(data, "the config")
    tables = _with_current_names(deepcopy(dict(data)))
    if root := os.environ.get("DROP_DATA"):
        overrides = [("settings.datasets_path", root), *overrides]
    for name, text in sorted(overrides, key=_types_first):
        _override(tables, name, text)
    config = _load(_with_current_names(tables))
    check(config)
    return config


def _with_current_names(tables: dict[str, Any]) -> dict[str, Any]:
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


def _types_first(override: tuple[str, str | None]) -> int:
    # The type of an attack or a defense decides which other fields there are.
    return 0 if override[0].split(".")[-1] in ("type", "attack", "defense", "poison") else 1


def _override(tables: dict[str, Any], name: str, text: str | None) -> None:
    known = {field.path: field for field in fields(tables)}
    matches = [path for path in known if path == name or path.endswith("." + name)]
    if not matches:
        short = {path.rsplit(".", 1)[-1] for path in known} | set(known)
        raise ConfigError(f"--{name} is unknown.{suggest(name, short) or _LIST_FIELDS}")
    if len(matches) > 1 and name not in matches:
        options = " or ".join(f"--{path}" for path in sorted(matches))
        raise ConfigError(f"--{name} is ambiguous: write {options}.")
    field = known[name if name in matches else matches[0]]
    if text is None:
        if field.kind is not bool:
            raise ConfigError(f"--{name} needs a value: {schema.describe(field.kind)}.")
        text = "true"
    value = schema.parse_text(field.kind, text, field.path)
    *parents, last = field.path.split(".")
    table = tables
    for parent in parents:
        if not isinstance(table.get(parent), dict):
            table[parent] = {}
        table = table[parent]
    table[last] = schema.dump(value)
    if field.path == f"{_DEFENSE}.type":
        table[last] = ALIASES.get(str(value).lower(), str(value).lower())
        _forget_foreign_args(table)
    elif field.path in (f"{_ATTACK}.type", f"{_ATTACK}.poison"):
        _forget_foreign_attack_fields(table)


_LIST_FIELDS = " `drop fields` lists them all."


def _forget_foreign_args(defense: dict[str, Any]) -> None:
    """Keep, of another defense's settings, those that the new one has too."""
    server = DEFENSES.get(defense["type"])
    args = defense.get("defense_args")
    if server is not None and isinstance(args, dict):
        own = schema.hints(server.hyperparameters)
        defense["defense_args"] = {key: value for key, value in args.items() if key in own}


def _forget_foreign_attack_fields(attack: dict[str, Any]) -> None:
    """Drop the fields of attacks and data poisons that are no longer chosen."""
    every = {
        name
        for registry in (ATTACKS, POISONS)
        for entry in registry.values()
        for name in schema.hints(entry.hyperparameters)
    }
    kept = {field.path for field in fields({"client": {"attack": attack}})}
    for key in every & set(attack):
        if join(_ATTACK, key) not in kept:
            del attack[key]


def fields(tables: Mapping[str, Any]) -> list[Field]:
    """Return every field that an experiment of these types has, in the order of the schema."""
    found: list[Field] = []
    _collect(ExperimentConfig, "", found)
    attack = _table(tables, "client", "attack")
    if (entry := ATTACKS.get(str(attack.get("type")))) is not None:
        _collect(entry.hyperparameters, _ATTACK, found)
    if (poison := POISONS.get(str(attack.get("poison", "pixel")))) is not None:
        _collect(poison.hyperparameters, _ATTACK, found)
    defense = _table(tables, "server", "defense")
    if (server := DEFENSES.get(str(defense.get("type", "undefended")))) is not None:
        _collect(server.hyperparameters, _ARGS, found)
    return found


def fields_of(defense: str, attack: str, poison: str) -> list[Field]:
    """Return the fields of an experiment with these types.

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
        _known(registry, name, f"--{kind}")
    chosen = {"type": attack, "poison": poison}
    return fields({"client": {"attack": chosen}, "server": {"defense": {"type": defense}}})


def _collect(cls: type, where: str, found: list[Field]) -> None:
    docs = schema.docs(cls)
    kinds = schema.hints(cls)
    for item in dataclasses.fields(cls):
        path = join(where, item.name)
        if path in (f"{_ATTACK}.args", f"{_ATTACK}.poison_args", _ARGS):
            continue
        kind = kinds[item.name]
        nested = _nested(kind)
        if nested is None or path == _ATTACK:
            default = item.default
            found.append(
                Field(path, str if path == _ATTACK else kind, docs.get(item.name, ""), default)
            )
        if nested is not None:
            _collect(nested, path, found)
    if cls is ExperimentConfig:
        # `--client.attack null` is the one override of a whole table.
        position = next(i for i, field in enumerate(found) if field.path == _ATTACK)
        found[position] = found[position]._replace(kind=None | str)


def _nested(kind: Any) -> type | None:
    for option in (kind, *schema.get_args(kind)):
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return option
    return None


def _table(tables: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    value: Any = tables
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _load(tables: dict[str, Any]) -> ExperimentConfig:
    tables = deepcopy(tables)
    attack_args: tuple[Any, Any] = (None, None)
    attack = _table(tables, "client", "attack")
    if isinstance(attack, dict) and attack:
        attack_args = _take_attack_args(attack)
    defense = _table(tables, "server", "defense")
    raw_args = defense.pop("defense_args", None) if isinstance(defense, dict) else None
    config = schema.load(ExperimentConfig, tables)
    server = _known(DEFENSES, config.server.defense.type, f"{_DEFENSE}.type")
    args = schema.load(server.hyperparameters, {} if raw_args is None else raw_args, _ARGS)
    defense_config = replace(config.server.defense, defense_args=args)
    client = config.client
    if client.attack is not None:
        args_, poison_args = attack_args
        client = replace(client, attack=replace(client.attack, args=args_, poison_args=poison_args))
    return replace(config, client=client, server=replace(config.server, defense=defense_config))


def _take_attack_args(attack: dict[str, Any]) -> tuple[Any, Any]:
    """Take the fields of one attack or one data poison alone out of the table, and type them."""
    if "type" not in attack:
        schema.load(AttackConfig, attack, _ATTACK)  # says so, or that a key is misspelt
    kinds = (
        _known(ATTACKS, attack.get("type"), f"{_ATTACK}.type").hyperparameters,
        _known(POISONS, attack.get("poison", "pixel"), f"{_ATTACK}.poison").hyperparameters,
    )
    common = schema.hints(AttackConfig)
    owners = {
        name: owner
        for registry in (ATTACKS, POISONS)
        for owner, entry in registry.items()
        for name in schema.hints(entry.hyperparameters)
    }
    own = [name for kind in kinds for name in schema.hints(kind)]
    for key in [key for key in attack if key not in common or key in ("args", "poison_args")]:
        if key in own:
            continue
        if attack[key] is not None and key in owners:
            raise ConfigError(f"{_ATTACK}.{key} belongs to {owners[key]}, which is not chosen.")
        if attack[key] is not None:
            known = [name for name in (*common, *own) if name not in ("args", "poison_args")]
            raise ConfigError(unknown(f"{_ATTACK}.{key}", str(key), known))
        attack.pop(key)  # the original writes null for another attack's fields
    taken = {key: attack.pop(key) for key in own if key in attack}
    first, second = (
        schema.load(kind, {k: v for k, v in taken.items() if k in schema.hints(kind)}, _ATTACK)
        for kind in kinds
    )
    return first, second


def _known(registry: Mapping[str, Any], name: object, where: str) -> Any:
    if isinstance(name, str) and name in registry:
        return registry[name]
    hint = suggest(str(name), registry) or f" Allowed: {', '.join(registry)}."
    raise ConfigError(f"{where} = {schema.show(name)} is unknown.{hint}")


def check(config: ExperimentConfig) -> None:
    """Refuse impossible combinations.

    Raises
    ------
    ConfigError
        One sentence that names the field, the value and the mend.
    """
    source = source_of(config)
    find(config.model)
    _check_name(config.name)
    federation = config.federation
    if federation.round_size > federation.size:
        raise ConfigError(
            f"federation.round_size = {federation.round_size}: is more than federation.size = "
            f"{federation.size}; lower it."
        )
    if federation.number_of_malicious_clients > federation.size:
        raise ConfigError(
            f"federation.number_of_malicious_clients = {federation.number_of_malicious_clients}: "
            f"is more than federation.size = {federation.size}; lower it."
        )
    if config.client.attack is not None:
        _check_attack(config, config.client.attack, source)
    held_out = source.held_out if config.server.held_out is None else config.server.held_out
    setting = Setting(
        federation.round_size,
        held_out,
        (source.channels, source.size),
        federation.number_of_malicious_clients if config.client.attack else 0,
        federation.size,
    )
    defense = config.server.defense
    DEFENSES[defense.type].check(defense.defense_args, setting)
    if config.settings.streaming:
        _check_streaming(config)
    if config.settings.compile and config.settings.engine == "vectorized":
        raise ConfigError(
            "settings.compile = true: the vectorized engine stacks models instead; use false."
        )
    _check_ray_address(config.settings.ray_address)
    for asked, field in (
        (config.server.bn_policy == "recalibrate", "server.bn_policy = recalibrate"),
        (defense.pretrain, "server.defense.pretrain = true"),
    ):
        if asked and held_out < 2:
            raise ConfigError(f"{field}: needs clean server data; raise server.held_out.")


def _check_streaming(config: ExperimentConfig) -> None:
    defense = config.server.defense
    if not DEFENSES[defense.type].streams(defense.defense_args):
        able = [
            name if entry.streaming == "yes" else f"{name} {entry.streaming}"
            for name, entry in DEFENSES.items()
            if entry.streaming != "no"
        ]
        raise ConfigError(
            f"settings.streaming = true: {defense.type} with these settings needs all updates of "
            f"a round at once; those that do not are {', '.join(able)}."
        )
    attack = config.client.attack
    if attack and ATTACKS[attack.type].conspires():
        raise ConfigError(
            f"settings.streaming = true: the attackers of {attack.type} look at the round's "
            "updates together, which are then never all there; use false."
        )


def _check_ray_address(address: str | None) -> None:
    if address not in (None, "auto") and not re.fullmatch(r"[^\s/]+:\d{1,5}", address or ""):
        raise ConfigError(
            f"settings.ray_address = {schema.show(address)}: allowed is auto, HOST:PORT or null."
        )


def _check_name(name: str | None) -> None:
    plain = name is None or (name.isprintable() and not name.startswith(".") and "/" not in name)
    if not plain or len(os.fsencode(name or "")) > 200:
        raise ConfigError(
            f"name = {schema.show(name)}: names a folder; allowed are up to 200 printable "
            "characters without a slash, the first of them no dot."
        )


def _check_attack(config: ExperimentConfig, attack: AttackConfig, source: Source) -> None:
    for name in ("target_class", "victim_class"):
        value = getattr(attack, name)
        if value is not None and value >= source.num_classes:
            raise ConfigError(
                f"{_ATTACK}.{name} = {value}: {config.dataset} has the classes 0 to "
                f"{source.num_classes - 1}."
            )
    if attack.victim_class == attack.target_class:
        raise ConfigError(
            f"{_ATTACK}.victim_class = {attack.victim_class}: is also the target class; choose "
            "another, or null for all classes but the target."
        )
    POISONS[attack.poison](attack, attack.poison_args, source.channels, source.size)
    start, end = attack.poisoning_start_round, attack.poisoning_end_round
    if attack.participation_strategy == "after_convergence":
        if start is None:
            raise ConfigError(
                f"{_ATTACK}.poisoning_start_round is missing: after_convergence needs the first "
                "round to poison."
            )
        if end is not None and end <= start:
            raise ConfigError(
                f"{_ATTACK}.poisoning_end_round = {end}: must come after "
                f"poisoning_start_round = {start}."
            )
    federation = config.federation
    share = federation.round_size * federation.number_of_malicious_clients
    if federation.malicious_client_strategy == "enforced" and share % federation.size:
        raise ConfigError(
            "federation.malicious_client_strategy = enforced: round_size x "
            f"number_of_malicious_clients / size = {share}/{federation.size} is not a whole "
            "number of clients; change one of the three, or use random."
        )


def to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Return nested tables that `experiment` would build the same experiment from."""
    tables = schema.dump(config)
    attack = tables["client"]["attack"]
    if attack is not None:
        for name in ("args", "poison_args"):
            attack.update(attack.pop(name) or {})
    return tables


def identity(config: ExperimentConfig) -> str:
    """Return the hash (12 hex digits) of everything in a config that can change a result."""
    return fingerprint(to_json(config))


def fingerprint(tables: Mapping[str, Any]) -> str:
    """Return the identity of the experiment whose `to_json` these tables are, unchecked.

    It is made of the fields that differ from their defaults: one that a later version adds, with
    a default that changes nothing, leaves the identities of finished runs as they were.
    """
    defaults = {field.path: field.default for field in fields(tables)}
    kept: dict[str, Any] = {"era": ERA}
    for path, value in flatten(tables):
        name = path.removeprefix("settings.")
        runtime = name != path and (
            value != APPROXIMATE[name] if name in APPROXIMATE else name in RUNTIME_SETTINGS
        )
        if not runtime and path != "name" and value != defaults.get(path, dataclasses.MISSING):
            kept[path] = value
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def default_name(config: ExperimentConfig) -> str:
    """Return a name for a run: data set, defense, attack and seed."""
    attack = config.client.attack.type if config.client.attack else "no-attack"
    defense = config.server.defense.type
    # An image folder's name may be a path.
    dataset = Path(config.dataset.removeprefix("imagefolder:")).name or "imagefolder"
    return f"{dataset}-{defense}-{attack}-seed{config.settings.seed}"


__all__ = [
    "DefenseConfig",
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
]
