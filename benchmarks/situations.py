"""Rounds in which a distillation is due: real federations, stopped where the teachers are known.

DROPlet defends them. In the last round the teachers are the honest clients and a given number of
poisoned ones that got through.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from entity.client import Broadcast
from entity.dataset import normalise
from entity.engine import Inline
from entity.federation import select
from entity.layout import ModelState
from entity.metrics import Judge
from entity.seeding import Seeds
from entity.server import CleanData, admit
from entity.setup import resolve
from entity.setup.assembly import initial_state, open_judge, open_server, recruit
from entity.setup.roster import Roster

CONFIGS = Path(__file__).parent.parent / "entity" / "configs"


@dataclass(frozen=True)
class Federation:
    """What is trained, and for how long, before the distillation; the malicious poison always."""

    title: str
    config: str
    rounds: int
    survivors: int
    """Poisoned models among the teachers."""
    overrides: tuple[tuple[str, str], ...]
    clone: bool = True
    """The student starts from the global model before the round, else from random weights."""


_DIGITS = (
    ("federation.size", "25"),
    ("round_size", "25"),
    ("number_of_malicious_clients", "10"),
)

FEDERATIONS = {
    "digits": Federation(
        "MNIST-5k, `cnn`, 15 honest teachers and a poisoned one",
        "mnist5k/drop",
        rounds=8,
        survivors=1,
        overrides=_DIGITS,
    ),
    "backdoored": Federation(
        "MNIST-5k, `cnn`, a global model with a backdoor, 6 honest teachers and 4 poisoned ones; "
        "the student starts from random weights",
        "mnist5k/stealthy/drop",
        rounds=25,
        survivors=4,
        overrides=(),
        clone=False,
    ),
    "images": Federation(
        "CIFAR-10 (JPEG), `resnet8`, 6 honest teachers and a poisoned one",
        "cifar10/drop",
        rounds=24,
        survivors=1,
        overrides=(
            ("dataset", "imagefolder:cifar10-folder"),
            ("model", "resnet8"),
            ("federation.size", "40"),
            ("round_size", "10"),
            ("number_of_malicious_clients", "16"),
            ("malicious_client_strategy", "enforced"),
            ("ADR", "0.4"),
            ("IID", "true"),
            ("num_epochs", "1"),
            ("server.held_out", "1000"),
            ("client.batch_size", "32"),
            ("client.lr", "0.02"),
            ("client.weight_decay", "0.0005"),
            ("DPR", "0.5"),
        ),
    ),
}


@dataclass(frozen=True)
class Situation:
    """Everything that a distillation starts from."""

    roster: Roster
    judge: Judge
    teachers: list[ModelState]
    start: ModelState
    """The global model before the round."""
    clean: CleanData
    """The server's clean images, in random order."""

    def module(self, state: ModelState) -> nn.Module:
        """Return a classifier that holds a state."""
        model = self.roster.new_model()
        self.roster.spec.load(model, state)
        return model


def prepare(federation: Federation, seed: int, data_root: Path) -> Situation:
    """Train a federation until its last round."""
    fixed = {
        "rounds": federation.rounds,
        "K": -1,
        "seed": seed,
        "engine": "inline",
        "num_threads": 1,
        "datasets_path": data_root,
    }
    config, _ = resolve.without_idle(
        resolve.read(CONFIGS / f"{federation.config}.json"),
        [*federation.overrides, *((name, str(value)) for name, value in fixed.items())],
    )
    seeds = Seeds(seed)
    split, roster = recruit(config, seeds)
    server = open_server(config, split, roster)
    state = initial_state(config, roster, server)
    engine = Inline(roster)
    for number in range(1, federation.rounds):
        chosen = select(config.federation, set(roster.malicious), number, seeds)
        state = admit(server, engine.train(Broadcast(number, state), chosen)).state
    chosen = select(config.federation, set(roster.malicious), federation.rounds, seeds)
    updates = engine.train(Broadcast(federation.rounds, state), chosen)
    poisoned = roster.poisoning(chosen, federation.rounds)
    rows = [row for row, client in enumerate(chosen) if client not in roster.malicious]
    rows += [row for row, client in enumerate(chosen) if client in poisoned][: federation.survivors]
    clean = CleanData(normalise(split.server.x), split.server.y)
    # They lie sorted by class, and DROP draws its seed images from all of them.
    order = torch.randperm(len(clean.y), generator=seeds.generator("distillation seeds"))
    return Situation(
        roster,
        open_judge(config, split, roster),
        [updates.state(row) for row in rows],
        state,
        CleanData(clean.x[order], clean.y[order]),
    )
