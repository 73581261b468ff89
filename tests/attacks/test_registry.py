"""The registries of attacks and data poisons."""

import importlib
import pkgutil

import pytest
import torch

import entity.attacks
import entity.poisons
from entity.attacks import ATTACKS
from entity.client.attacker import Attacker
from entity.client.poison import Poison
from entity.poisons import POISONS
from entity.seeding import Seeds


@pytest.mark.parametrize(
    ("package", "registry", "base"),
    [(entity.attacks, ATTACKS, Attacker), (entity.poisons, POISONS, Poison)],
    ids=["attacks", "poisons"],
)
def test_every_file_holds_the_one_entry_of_its_name(package, registry, base):
    for file in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{file.name}")
        own = [
            entry
            for entry in vars(module).values()
            if isinstance(entry, type)
            and issubclass(entry, base)
            and entry.__module__ == module.__name__
        ]
        assert own == [registry[file.name]]
    assert len(registry) == len(list(pkgutil.iter_modules(package.__path__)))


TOGETHER = {"covered", "impersonation", "three_dfed"}
"""Attacks that need a new model to conspire, which their own tests have."""


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in TOGETHER])
def test_only_an_attack_that_says_so_changes_the_round_and_then_its_own_rows_alone(
    make_round, name
):
    entry = ATTACKS[name]
    args = entry.hyperparameters()
    updates = make_round(torch.randn((8, 40), generator=torch.Generator().manual_seed(3)))
    before = updates.weights.clone()
    entry.collude(args, updates, [1, 4, 6], Seeds(0))
    others = [0, 2, 3, 5, 7]
    assert torch.equal(updates.weights[others], before[others])
    assert (not torch.equal(updates.weights, before)) == entry.colludes(args)
