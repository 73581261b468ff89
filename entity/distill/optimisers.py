"""Optimisers of a distillation's networks, and how their learning rates fall."""

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
        return torch.optim.Adam(module.parameters(), lr=lr, weight_decay=5e-4, fused=True)
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
        Settings: `lr_scheduler` and `cycles`.
    iterations
        Of the whole distillation.
    """
    schedulers = torch.optim.lr_scheduler
    if args.lr_scheduler == "cosine" and args.cycles > 1:
        return schedulers.CosineAnnealingWarmRestarts(optimiser, args.cycle(iterations))
    if args.lr_scheduler == "cosine":
        return schedulers.CosineAnnealingLR(optimiser, iterations)
    if args.lr_scheduler == "cosine_warm":
        return schedulers.CosineAnnealingWarmRestarts(optimiser, max(1, iterations // 100))
    return schedulers.ConstantLR(optimiser, factor=1.0)
