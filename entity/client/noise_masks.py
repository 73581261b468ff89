"""Noise masks of 3DFed: models of a group differ in the output layer, and their mean does not."""

from dataclasses import dataclass

import torch
from torch import Tensor

from entity.training import Recipe

STEPS, RATE, DUAL_RATE, REPULSION = 30, 0.1, 0.1, 0.1
"""Steps and rate of SGD, rate of the multiplier, weight of 1 / energy: the authors' code."""


@dataclass(frozen=True)
class MaskSettings:
    """What a group's masks are optimised for."""

    alpha: float
    """Weight of the energies; 1 - alpha is that of the masks' norms."""
    std: float
    """Standard deviation of the start."""
    norm: float
    """Weight of a mask's norm, before 1 - alpha."""
    balance: float
    """Weight of the norm of the masks' sum, before the multiplier."""


def noise_masks(
    energies_of: Tensor, count: int, settings: MaskSettings, recipe: Recipe, rng: torch.Generator
) -> Tensor:
    """Return masks (count, K, H) for rows of the output layer; zeros for a group of one.

    With u the update's rows and δ_i the masks, 30 steps of SGD lower, for each i,
    [a Σ_k 0.1 / |u_k + δ_ik|_1 + (1 - a) c ‖δ_i‖ + μ d ‖Σ_j δ_j‖] / (1 + μ), and after each step μ
    grows by 0.1 ‖Σ_j δ_j‖. So rows gain energy, each model in its own way, masks stay small and
    cancel in the mean.

    Parameters
    ----------
    energies_of
        (K, H) u, the backdoored update of the rows that get noise.
    count
        Models in the group.
    settings
        a, the start, c and d.
    recipe
        Momentum and weight decay.
    rng
        Draws the start, which has mean zero over the group.
    """
    shape = (count, *energies_of.shape)
    masks = settings.std * torch.randn(shape, generator=rng)
    masks -= masks.mean(0)
    if count < 2:
        return torch.zeros(shape)
    masks.requires_grad_()
    optimiser = torch.optim.SGD(
        [masks], RATE, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    multiplier = 1.0
    for _ in range(STEPS):
        energies = (energies_of + masks).abs().sum(2).clamp_min(1e-6)
        own = settings.alpha * REPULSION * (1 / energies).sum()
        own = own + (1 - settings.alpha) * settings.norm * masks.flatten(1).norm(dim=1).sum()
        together = settings.balance * masks.sum(0).norm()
        optimiser.zero_grad()
        ((own + multiplier * together) / (1 + multiplier)).backward()
        optimiser.step()
        multiplier += DUAL_RATE * masks.detach().sum(0).norm().item()
    return masks.detach()
