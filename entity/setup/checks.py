"""Does an experiment make sense: what no single field's type can say."""

import json
import os
import re
from typing import Any

from entity.attacks import ATTACKS
from entity.client import CLIENTS_OF_DEFENSES
from entity.config import schema
from entity.config.fields import (
    AttackConfig,
    ClientConfig,
    ExperimentConfig,
    FederationConfig,
)
from entity.config.schema import ConfigError
from entity.dataset import DATASETS, Source, source_of
from entity.defenses import DEFENSES
from entity.models import MODELS, find
from entity.models.fit_of_images import next_size, takes
from entity.poisons import POISONS
from entity.returned import kind
from entity.server import Needs, Setting, StreamingServer
from entity.server.streaming import can_stream
from entity.setup.field_list import ATTACK
from entity.setup.held_out import held_out
from entity.setup.identity import to_json
from entity.setup.signatures import refuse_unfinished

ANY_MODEL = 16
"""Side of images from which on every model of the registry takes them; a test holds it."""


def check(config: ExperimentConfig) -> None:
    """Refuse impossible combinations.

    Raises
    ------
    ConfigError
        One sentence that names the field, the value and what to do.
    """
    source = source_of(config)
    _check_image_size(config.model, source)
    _check_name(config.name)
    _check_characters(config)
    _check_federation(config.federation)
    _check_partition(config, source)
    _check_privacy(config.client, config.server.defense.type)
    if config.client.attack is not None:
        _check_attack(config.client.attack, config.dataset, source)
        _check_enforced_share(config.federation)
    _check_server(config, source)
    if config.settings.streaming:
        _check_streaming(config)
    if config.settings.compile and config.settings.engine == "vectorized":
        raise ConfigError(
            "settings.compile = true: the vectorized engine stacks models instead; use false."
        )
    _check_ray_address(config.settings.ray_address)
    _check_clean_data(config, source)


def _check_characters(config: ExperimentConfig) -> None:
    """Refuse half a character, as in a path that is no UTF-8: no record with one can be read."""
    for path, value in schema.flatten(to_json(config)):
        try:
            f"{path} = {json.dumps(value, ensure_ascii=False)}".encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"{path} = {schema.show(value)}: holds half a character, which no record can; "
                "allowed is text that is UTF-8."
            ) from None


def _check_image_size(model: str, source: Source) -> None:
    """Refuse images that a model of the registry cannot take; a user's own is tried out later."""
    entry, (channels, size) = find(model), (source.channels, source.size)
    if entry.own:
        return
    if len(source.sample) != 3 or source.sample[1] != source.sample[2]:
        raise ConfigError(
            f"model = {model}: takes square images, and a sample of {source.name} is of "
            f"{source.form}; use a model of your own (plugins, README)."
        )
    if size >= ANY_MODEL or takes(entry.make, channels, size):
        return
    side = next_size(entry.make, channels, size)
    larger = f"images from {side}x{side} pixels on, or " if side else ""
    able = [name for name, each in MODELS.items() if takes(each.make, channels, size)]
    raise ConfigError(
        f"model = {model}: cannot be trained on images of {size}x{size} pixels; allowed are "
        f"{larger}another model ({', '.join(able) or 'none of the registry'})."
    )


def _check_federation(federation: FederationConfig) -> None:
    for name in ("round_size", "number_of_malicious_clients"):
        number = getattr(federation, name)
        if number > federation.size:
            raise ConfigError(
                f"federation.{name} = {number}: is more than federation.size = "
                f"{federation.size}; lower it."
            )


def _check_partition(config: ExperimentConfig, source: Source) -> None:
    if config.client.IID or config.client.partition != "natural" or source.natural:
        return
    able = ", ".join(f"{name} ({each.natural})" for name, each in DATASETS.items() if each.natural)
    raise ConfigError(
        f"client.partition = natural: {source.name} has no clients of its own; those that have are "
        f"{able}."
    )


def _check_privacy(client: ClientConfig, defense: str) -> None:
    if client.dp_clip is not None and client.dp_unit == "sample" and defense in CLIENTS_OF_DEFENSES:
        raise ConfigError(
            f"client.dp_unit = sample: clients of {defense} train in a way of their own, which has "
            "no gradient of one sample; use update."
        )


def _check_server(config: ExperimentConfig, source: Source) -> None:
    federation = config.federation
    setting = Setting(
        federation.round_size,
        held_out(config, source),
        (source.channels, source.size),
        federation.number_of_malicious_clients if config.client.attack else 0,
        federation.size,
    )
    defense = config.server.defense
    entry = DEFENSES[defense.type]
    needs: Any = entry.needs(defense.defense_args)
    if not isinstance(needs, Needs):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(
            f"server.defense.type = {defense.type}: {entry.__name__}.needs returned {kind(needs)}; "
            "it must return an entity.server.Needs."
        )
    if source.shape is not None and needs.images:
        raise ConfigError(
            f"server.defense.type = {defense.type}: makes up square images of bytes, and a sample "
            f"of {source.name} is none ({source.form}); use another defense"
            f"{', or set K to -1 (DROPlet)' if defense.type == 'drop' else ''}."
        )
    entry.check(defense.defense_args, setting)


def _check_clean_data(config: ExperimentConfig, source: Source) -> None:
    for asked, field in (
        (config.server.bn_policy == "recalibrate", "server.bn_policy = recalibrate"),
        (config.server.defense.pretrain, "server.defense.pretrain = true"),
    ):
        if asked and held_out(config, source) < 2:
            raise ConfigError(f"{field}: needs clean server data; raise server.held_out.")


def _check_streaming(config: ExperimentConfig) -> None:
    defense = config.server.defense
    if not can_stream(DEFENSES[defense.type], defense.defense_args):
        able = [
            f"{name} {entry.streams_with}".rstrip()
            for name, entry in DEFENSES.items()
            if issubclass(entry, StreamingServer)
        ]
        raise ConfigError(
            f"settings.streaming = true: {defense.type} with these settings needs all updates of "
            f"a round at once; those that do not are {', '.join(able)}."
        )
    attack = config.client.attack
    if attack and attack.takes_place and ATTACKS[attack.type].colludes(attack.args):
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


def _check_attack(attack: AttackConfig, dataset: str, source: Source) -> None:
    for name in ("target_class", "victim_class"):
        value = getattr(attack, name)
        if value is not None and value >= source.num_classes:
            raise ConfigError(
                f"{ATTACK}.{name} = {value}: {dataset} has the classes "
                f"{source.named(0)} to {source.named(source.num_classes - 1)}."
            )
    if attack.victim_class == attack.target_class:
        raise ConfigError(
            f"{ATTACK}.victim_class = {source.named(attack.target_class)}: is also the target "
            "class; choose another, or null for all classes but the target."
        )
    poison = POISONS[attack.poison]
    if source.shape is not None and not poison.any_samples:
        able = ", ".join(name for name, entry in POISONS.items() if entry.any_samples)
        raise ConfigError(
            f"{ATTACK}.poison = {attack.poison}: changes square images of bytes, and a sample of "
            f"{source.name} is none ({source.form}); use {able}, or one of your own."
        )
    made = poison(attack, attack.poison_args, source.channels, source.size)
    refuse_unfinished(made, "attack", "args")
    _check_window(attack)


def _check_window(attack: AttackConfig) -> None:
    start, end = attack.poisoning_start_round, attack.poisoning_end_round
    if attack.participation_strategy == "after_convergence":
        if start is None:
            raise ConfigError(
                f"{ATTACK}.poisoning_start_round is missing: after_convergence needs the first "
                "round to poison."
            )
        if end is not None and end <= start:
            raise ConfigError(
                f"{ATTACK}.poisoning_end_round = {end}: must come after "
                f"poisoning_start_round = {start}."
            )


def _check_enforced_share(federation: FederationConfig) -> None:
    share = federation.round_size * federation.number_of_malicious_clients
    if federation.malicious_client_strategy == "enforced" and share % federation.size:
        raise ConfigError(
            "federation.malicious_client_strategy = enforced: round_size x "
            f"number_of_malicious_clients / size = {share}/{federation.size} is not a whole "
            "number of clients; change one of the three, or use random."
        )
