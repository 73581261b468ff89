"""Seconds a round of a shipped configuration, by engine and precision."""

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from statistics import median
from typing import Any

import torch

from card.budget import Budget
from card.scene import number_of
from entity import experiment
from entity.config.fields import ExperimentConfig
from entity.config.shipped import shipped
from entity.setup import resolve

ROUNDS = 200
"""Rounds of the paper on CIFAR-10."""

TINY: dict[str, object] = {
    "model": "resnet8",
    "ADR": 0.04,
    "DPR": 1.0,
    "rounds": 2,
    "federation.size": 4,
    "round_size": 3,
    "number_of_malicious_clients": 1,
    "num_epochs": 1,
    "held_out": 40,
}
"""What makes a shipped configuration of CIFAR-10 one of seconds on a CPU."""

TINY_DROP: dict[str, object] = {
    "K": 2,
    "budget": 400,
    "defense_args.batch_size": 8,
    "num_seed": 20,
    "gen_width": 8,
    "dis_width": 8,
}
"""The same for a distillation: three iterations."""

WAYS: tuple[tuple[str, dict[str, object]], ...] = (
    ("inline", {"engine": "inline"}),
    ("inline, bfloat16", {"engine": "inline", "amp_enabled": "true"}),
    ("pool of 4 workers", {"engine": "pool", "workers": 4}),
)


class Enough(Exception):
    """Ends a run from its callback; the run's folder can be resumed."""


def shipped_config(
    name: str, device: torch.device, fields: Mapping[str, object], tiny: bool
) -> ExperimentConfig:
    """Return a configuration of `cifar10/` on a device.

    Parameters
    ----------
    name
        Of the file.
    device
        Where clients train.
    fields
        What differs from the file.
    tiny
        A few images and clients, for a trial on a CPU.
    """
    changed = {"cuda": number_of(device), **(TINY if tiny else {}), **fields}
    words = [(name, str(value)) for name, value in changed.items()]
    return resolve.experiment(resolve.read(shipped(f"cifar10/{name}")), words)


def seconds_a_round(config: ExperimentConfig, budget: Budget, most: int) -> dict[str, Any]:
    """Run rounds of a configuration until the time or their number is over.

    The first one, in which kernels are loaded and workers started, is told apart.

    Parameters
    ----------
    config
        What is run, without a folder.
    budget
        Its share ends it.
    most
        Rounds.
    """
    began = time.perf_counter()
    seen: list[float] = []
    phases: list[Mapping[str, float]] = []

    def on_round(line: Mapping[str, Any]) -> None:
        nonlocal began
        now = time.perf_counter()
        seen.append(now - began)
        phases.append(line["seconds"])
        began = now
        if len(seen) >= most or (len(seen) > 1 and budget.left < 1.5 * seen[-1]):
            raise Enough

    with suppress(Enough):
        experiment.run(config, on_round=on_round)
    later = seen[1:] or seen
    return {
        "rounds": len(seen),
        "first": seen[0],
        "seconds": median(later),
        "minutes_of_200": (seen[0] + (ROUNDS - 1) * median(later)) / 60,
        "phases": {
            name: median(phase.get(name, 0.0) for phase in phases[1:] or phases)
            for name in ("train", "aggregate", "evaluate")
        },
    }


def rounds(device: torch.device, budget: Budget, tiny: bool) -> Iterator[dict[str, Any]]:
    """Measure `cifar10/undefended.json` each way, in equal shares of the time that is left.

    Parameters
    ----------
    device
        Where clients train.
    budget
        Of this part.
    tiny
        A few images and clients.
    """
    for number, (way, fields) in enumerate(WAYS):
        found: list[dict[str, Any]] = []  # empty where the time was over
        with budget.share(budget.left / (len(WAYS) - number)):
            config = shipped_config("undefended", device, fields, tiny)
            found.append({"way": way, **seconds_a_round(config, budget, 2 if tiny else 12)})
        yield from found
