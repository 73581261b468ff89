"""Seconds of one distillation at the paper's budget: `cifar10/drop.json`, 25 teachers."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from card.budget import Budget
from card.rounds import TINY_DROP, shipped_config
from card.scene import Scale, synchronise
from entity.defenses.drop import Drop, DropArgs
from entity.distill.student import Distiller
from entity.layout import ModelState
from entity.setup.assembly import assemble

FIRST = 3
"""Iterations that warm up, and say how many fit."""

WAYS: tuple[tuple[str, dict[str, object]], ...] = (
    ("as published", {}),
    ("channels_last", {"channels_last": True}),
    ("channels_last, bfloat16", {"channels_last": True, "amp_enabled": True}),
)


def distillations(
    device: torch.device, scale: Scale, budget: Budget, tiny: bool
) -> Iterator[dict[str, Any]]:
    """Measure a distillation each way, in equal shares of the time that is left.

    Parameters
    ----------
    device, scale
        Where, and how much.
    budget
        Of this part.
    tiny
        A few images, clients and iterations.
    """
    fields = TINY_DROP if tiny else {}
    world = assemble(shipped_config("drop", device, fields, tiny))
    server = world.server
    assert isinstance(server, Drop)
    state = world.roster.spec.flatten(world.roster.new_model())
    teachers = [_moved(state, number) for number in range(scale.teachers)]
    for number, (way, changes) in enumerate(WAYS):
        args = replace(server.args, **changes)
        wanted = args.iterations
        found: list[dict[str, Any]] = []  # empty where the time was over
        with budget.share(budget.left / (len(WAYS) - number)):

            def timed(iterations: int, args: DropArgs = args) -> tuple[dict[str, float], float]:
                distiller = Distiller(replace(args, distill_iters=iterations), server.resources)
                return _timed(distiller, teachers, state, device)

            first, started = timed(FIRST)
            each = sum(first.values()) / FIRST
            beside = started - sum(first.values())
            done = max(2, min(wanted, int((0.8 * budget.left - beside) / each)))
            phases, seconds = timed(2 if tiny else done)
            done = 2 if tiny else done
            in_loop = sum(phases.values())
            one = {
                "way": way,
                "teachers": scale.teachers,
                "batch": args.batch_size,
                "iterations": done,
                "of": wanted,
                "seconds": seconds,
                "whole": seconds - in_loop + in_loop / done * wanted,
                "phases": phases,
            }
            found.append(one)
        yield from found


def _moved(state: ModelState, number: int) -> ModelState:
    """Return a model near another one; what teachers say does not change what asking costs."""
    rng = torch.Generator().manual_seed(number)
    noise = torch.randn(state.weights.shape, generator=rng)
    return state._replace(weights=state.weights + 1e-3 * noise)


def _timed(
    distiller: Distiller, teachers: list[ModelState], state: ModelState, device: torch.device
) -> tuple[dict[str, float], float]:
    """Distil once; return the seconds by phase, and those of all.

    Parameters
    ----------
    distiller
        With its settings.
    teachers, state
        The admitted clients' models, and the global one.
    device
        Waited for at the end.
    """
    synchronise(device)
    began = time.perf_counter()
    _, report = distiller.distil(1, teachers, state, state)
    synchronise(device)
    assert len(report.samples), "no teacher was kept"
    return report.seconds, time.perf_counter() - began
