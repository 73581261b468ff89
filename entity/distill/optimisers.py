"""Optimisers of a distillation's networks, and how their learning rates fall."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from math import cos, pi

import torch
from torch import Tensor, nn

from entity.distill.settings import MazeArgs


def descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    """Take one step, with gradients for this optimiser's own parameters only."""
    optimiser.zero_grad(set_to_none=True)
    loss.backward(inputs=[p for group in optimiser.param_groups for p in group["params"]])
    optimiser.step()


def new_optimiser(module: nn.Module, args: MazeArgs, lr: float) -> torch.optim.Optimizer:
    """Return the configured optimiser of one of the networks.

    Parameters
    ----------
    module
        The network.
    args
        Settings; `opt` is sgd or adam.
    lr
        First learning rate.
    """
    if args.opt == "adam":
        return torch.optim.Adam(module.parameters(), lr=lr, fused=True)
    return torch.optim.SGD(module.parameters(), lr=lr, momentum=0.9, weight_decay=5e-4, fused=True)


def new_schedule(
    optimiser: torch.optim.Optimizer, args: MazeArgs, iterations: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the configured schedule of an optimiser, to be stepped once in an iteration.

    Parameters
    ----------
    optimiser
        Whose learning rate falls.
    args
        Settings: `opt`, `lr_scheduler` and `cycles`. Adam has no schedule, as in DROP's code.
    iterations
        Of the whole distillation.
    """
    schedulers = torch.optim.lr_scheduler
    if args.opt == "adam":
        return schedulers.ConstantLR(optimiser, factor=1.0)
    if args.lr_scheduler == "cosine" and args.cycles > 1:
        return schedulers.LambdaLR(optimiser, falling(args.cycle_ends(iterations)))
    if args.lr_scheduler == "cosine":
        return schedulers.CosineAnnealingLR(optimiser, iterations)
    if args.lr_scheduler == "cosine_warm":
        return schedulers.CosineAnnealingWarmRestarts(optimiser, max(1, iterations // 100))
    return schedulers.ConstantLR(optimiser, factor=1.0)


def falling(ends: Sequence[int]) -> Callable[[int], float]:
    """Return the share of the rate in an iteration (from 0): a cosine from 1 in every cycle.

    The share in the last iteration of a cycle of L is (1 + cos(pi (L - 1) / L)) / 2.

    Parameters
    ----------
    ends
        The last iteration (from 1) of every cycle, increasing.

    Examples
    --------
    >>> share = falling([2, 5])
    >>> [round(share(iteration), 2) for iteration in range(5)]
    [1.0, 0.5, 1.0, 0.75, 0.25]
    """

    def share(iteration: int) -> float:
        number = min(bisect_right(ends, iteration), len(ends) - 1)
        first = ends[number - 1] if number else 0
        return (1 + cos(pi * (iteration - first) / (ends[number] - first))) / 2

    return share
