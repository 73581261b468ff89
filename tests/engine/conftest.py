"""A federation of unequal clients on made-up images, with a model of buffers and dropout."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from entity.attacks import ATTACKS
from entity.dataset import Images, Shares
from entity.dataset.augment import Augmentation
from entity.poisons import POISONS
from entity.setup import resolve
from entity.setup.roster import Roster

MakeRoster = Callable[..., Roster]
SIZES = (7, 30, 16, 9, 24)
IDS = (0, 1, 2, 4)


@pytest.fixture(scope="session")
def odd_clients():
    """The module of the same name, where worker processes find it, too."""
    folder = str(Path(__file__).parent)
    sys.path.insert(0, folder)
    import odd_clients

    yield odd_clients
    sys.path.remove(folder)


@pytest.fixture(scope="session")
def make_roster(odd_clients, tables) -> MakeRoster:
    """Five clients, 3 of them malicious, on images of 12x12 pixels in four classes."""

    def make(changes=None, benign=odd_clients.Odd):
        config = resolve.experiment(
            tables(
                {
                    "model": "odd_clients:net",
                    "client.num_epochs": 2,
                    "client.batch_size": 8,
                    "client.transform": True,
                    "client.attack": {"type": "badnets", "DPR": 1, "target_class": 1},
                    "federation.size": 5,
                    "federation.round_size": 4,
                    **(changes or {}),
                }
            )
        )
        rng = torch.Generator().manual_seed(5)
        x = torch.randint(256, (sum(SIZES), 1, 12, 12), generator=rng).to(torch.uint8)
        images = Images(x, torch.arange(sum(SIZES)) % 4)
        owners = np.repeat(np.arange(len(SIZES)), SIZES)
        attack = config.client.attack
        return Roster(
            config,
            images,
            Shares.of_owners(owners, len(SIZES)),
            frozenset({4}),
            ATTACKS["badnets"],
            POISONS["pixel"](attack, attack.poison_args, 1, 12),
            Augmentation(pad=2, flip=True, degrees=10),
            4,
            benign=benign,
        )

    return make


@pytest.fixture(scope="session")
def ids() -> tuple[int, ...]:
    """Those who train."""
    return IDS


@pytest.fixture
def importable_main(monkeypatch):
    """Let workers find nothing amiss with the main module; that of pytest-xdist is no file."""
    for name in ("obstacle", "unknown_names"):
        monkeypatch.setattr(f"entity.engine.main_module.{name}", lambda: "")
