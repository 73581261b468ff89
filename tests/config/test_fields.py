import ast
import dataclasses
from pathlib import Path

import pytest

import entity
from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import (
    RUNTIME_SETTINGS,
    WITHOUT_EFFECT,
    AttackConfig,
    ClientConfig,
    DefenseConfig,
    ExperimentConfig,
    FederationConfig,
    ServerConfig,
    SettingsConfig,
)
from entity.config.schema import ConfigError
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.setup import resolve

TABLES = [
    AttackConfig,
    ClientConfig,
    DefenseConfig,
    ExperimentConfig,
    FederationConfig,
    ServerConfig,
    SettingsConfig,
]


@pytest.mark.parametrize("table", TABLES)
def test_every_field_is_documented_and_every_table_frozen(table):
    assert table.__dataclass_params__.frozen
    nested = {"client", "federation", "server", "settings"}  # tables, whose class says it
    names = {item.name for item in dataclasses.fields(table)} - nested
    assert names <= set(schema.docs(table))
    assert all(schema.docs(table)[name].endswith(".") for name in names)


def test_the_runtime_settings_are_settings_and_the_seed_is_none_of_them():
    assert set(RUNTIME_SETTINGS) < {item.name for item in dataclasses.fields(SettingsConfig)}
    assert not {"seed", "num_threads", "eval_every"} & set(RUNTIME_SETTINGS)


def _attributes_read():
    """Return the names of all attributes that the package reads."""
    trees = [ast.parse(path.read_text()) for path in Path(entity.__file__).parent.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    return {node.attr for node in nodes if isinstance(node, ast.Attribute)}


def test_the_fields_without_effect_are_those_that_nothing_reads():
    entries = [*ATTACKS.values(), *DEFENSES.values(), *POISONS.values()]
    tables = [*TABLES, *(entry.hyperparameters for entry in entries)]
    names = {item.name for table in tables for item in dataclasses.fields(table)}
    unread = names - _attributes_read()
    assert unread == {path.rsplit(".", 1)[-1] for path in WITHOUT_EFFECT}


def test_a_field_without_effect_says_so():
    docs = {field.path: field.doc for field in resolve.fields_of("drop", "badnets", "pixel")}
    saying = {path for path, doc in docs.items() if doc.startswith("Without effect")}
    assert saying == set(WITHOUT_EFFECT)


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("client.num_epochs", 0, "a whole number at least 1"),
        ("client.num_epochs", 1.5, "a whole number at least 1"),
        ("client.lr", 0, "a number above 0"),
        ("client.lr", -0.1, "a number above 0"),
        ("client.lr", "fast", "a number above 0"),
        ("client.batch_size", 0, "a whole number at least 1"),
        ("client.momentum", 1.5, "a number from 0 to 1"),
        ("client.weight_decay", -1, "a number at least 0"),
        ("client.ADR", 1.1, "a number from 0 to 1"),
        ("client.dirichlet_alpha", 0, "a number above 0"),
        ("client.min_samples", 0, "a whole number at least 1"),
        ("client.IID", "yes", "true or false"),
        ("client.IID", 1, "true or false"),
        ("client.partition", "dirichlet", "one of dirichlet_class, dirichlet_client"),
        ("client.attack.DPR", 1.5, "a number from 0 to 1"),
        ("client.attack.DPR", True, "a number from 0 to 1"),
        ("client.attack.target_class", -1, "a whole number at least 0"),
        ("client.attack.target_class", None, "a whole number at least 0"),
        ("client.attack.victim_class", -1, "a whole number at least 0 or null"),
        ("client.attack.trigger_position", "centre", "one of top_left, top_right"),
        ("client.attack.participation_strategy", "always", "one of consistent"),
        ("client.attack.poisoning_start_round", 0, "a whole number at least 1 or null"),
        ("server.server_lr", 0, "a number above 0"),
        ("server.weighting", "size", "one of uniform, samples"),
        ("server.bn_policy", "mean", "one of auto, median, weighted"),
        ("server.low_confidence_threshold", 40, "a number from 0 to 1 or null"),
        ("server.held_out", -1, "a whole number at least 0 or null"),
        ("federation.size", 0, "a whole number at least 1"),
        ("federation.number_of_malicious_clients", -1, "a whole number at least 0"),
        ("federation.round_size", 0, "a whole number at least 1"),
        ("federation.rounds", 0, "a whole number at least 1"),
        ("federation.malicious_client_strategy", "fixed", "one of random, enforced"),
        ("settings.seed", -1, "a whole number at least 0"),
        ("settings.seed", "x", "a whole number at least 0"),
        ("settings.engine", "ray!", "one of auto, inline, pool"),
        ("settings.workers", -1, "a whole number at least 0"),
        ("settings.eval_every", 0, "a whole number at least 1"),
        ("settings.num_parallel_max", 0, "a whole number at least 1"),
        ("settings.verbose", None, "true or false"),
        ("name", 5, "a text or null"),
    ],
)
def test_a_wrong_value_is_answered_by_field_value_and_what_is_allowed(tables, path, value, allowed):
    with pytest.raises(ConfigError) as refusal:
        resolve.experiment(tables({path: value}))
    assert str(refusal.value).startswith(f"{path} = {schema.show(value)}: allowed is {allowed}")


@pytest.mark.parametrize("path", ["client.num_epochs", "client.attack.target_class", "dataset"])
def test_what_has_no_default_must_be_given(tables, path):
    data = tables()
    *parents, last = path.split(".")
    table = data
    for parent in parents:
        table = table[parent]
    del table[last]
    with pytest.raises(ConfigError, match=rf"^{path} is missing: it needs a "):
        resolve.experiment(data)


def test_the_defaults_are_those_of_the_drop_experiments():
    client = ClientConfig(num_epochs=2, lr=0.01, batch_size=64)
    assert (client.momentum, client.weight_decay, client.batchwise_poison) == (0.9, 0.005, False)
    assert (client.IID, client.ADR, client.transform) == (True, 1.0, True)
    server = ServerConfig()
    assert (server.server_lr, server.weighting, server.bn_policy) == (1.0, "uniform", "auto")
    assert server.defense.type == "undefended"
    attack = AttackConfig("badnets", target_class=7)
    assert (attack.trigger_pattern, attack.trigger_position) == ("4pixel", "top_left")
    assert (attack.participation_strategy, attack.victim_class) == ("consistent", None)
