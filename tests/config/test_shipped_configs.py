"""Every shipped configuration, built on tiny images of its data set's kind."""

import dataclasses
from pathlib import Path

import pytest
import torch

import entity
from entity.dataset import DATASETS, Images, Source
from entity.defenses import DEFENSES
from entity.seeding import Seeds
from entity.setup import assembly, resolve

CONFIGS = Path(entity.__file__).parent / "configs"
SHIPPED = sorted(path for path in CONFIGS.rglob("*.json") if path.stem != "federation")
FOLDERS = ("cifar10", "cinic10", "emnist", "fashionmnist", "gtsrb", "mnist5k", "mnist")


def stand_in(name: str) -> Source:
    """Return a data set of black images in place of the real ones."""
    source = DATASETS[name]
    y = torch.arange(source.num_classes).repeat(150 if source.num_classes <= 10 else 60)
    x = torch.zeros(len(y), source.channels, source.size, source.size, dtype=torch.uint8)
    facts = {"client_sizes": [20] * (len(y) // 20)} if source.natural else {}
    train = Images(x, y[torch.randperm(len(y), generator=torch.Generator())], facts=facts)
    return dataclasses.replace(source, read=lambda *_: (train, Images(x[:100], y[:100])))


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_defense_has_a_configuration_for_every_data_set(folder):
    assert {path.stem for path in (CONFIGS / folder).glob("*.json")} >= set(DEFENSES)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: str(p.relative_to(CONFIGS).with_suffix("")))
def test_a_shipped_configuration_builds_its_experiment(path, monkeypatch):
    # All files of a folder have one model; two build it, the others a quicker one.
    quick = [] if path.stem in ("drop", "undefended") else [("model", "cnn")]
    config = resolve.experiment(resolve.read(path), [("cuda", "-1"), *quick])
    monkeypatch.setitem(DATASETS, config.dataset, stand_in(config.dataset))
    split, roster = assembly.recruit(config, Seeds(1))
    server = assembly.open_server(config, split, roster)
    assert isinstance(server, DEFENSES[config.server.defense.type])
    assert len(roster.shares) == config.federation.size
    assert len(roster.malicious) == config.federation.number_of_malicious_clients
    assembly.open_judge(config, split, roster)


# What DROP's experiments were run with, from its published settings.
ORIGINAL = {
    # size, round, malicious, rounds, epochs, batch, lr, momentum, decay, DPR, victim, target, K
    "cifar10": (50, 25, 10, 200, 2, 64, 0.01, 0.9, 0.005, 0.125, 0, 7, 5),
    "cinic10": (150, 30, 30, 200, 2, 64, 0.01, 0.9, 0.005, 0.125, 0, 7, 10),
    "emnist": (100, 50, 20, 80, 2, 64, 0.01, 0.0, 0.0, 0.5875, 33, 34, 40),
}


@pytest.mark.parametrize("folder", ORIGINAL)
def test_federations_and_attacks_are_the_original_s(folder):
    config = resolve.experiment(resolve.read(CONFIGS / folder / "drop.json"))
    federation, client, attack = config.federation, config.client, config.client.attack
    assert attack is not None
    assert (
        federation.size,
        federation.round_size,
        federation.number_of_malicious_clients,
        federation.rounds,
        client.num_epochs,
        client.batch_size,
        client.lr,
        client.momentum,
        client.weight_decay,
        attack.DPR,
        attack.victim_class,
        attack.target_class,
        config.server.defense.defense_args.K,
    ) == ORIGINAL[folder]
    assert config.settings.seed == 71
    assert config.server.low_confidence_threshold == 0.4
