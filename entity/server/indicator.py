"""A task that a server plants in a model and looks for again: BackdoorIndicator's.

Li and Dai, USENIX Security 2024, arXiv 2405.20862; the rates are those of the authors' code.
"""

import torch
from torch import Tensor, nn

from entity.server.contract import Resources
from entity.training import Recipe, cross_entropy, shuffled

_MILESTONES = (10, 20, 30, 160, 200, 240, 280, 320, 360)
"""Epochs after which the rate of planting is multiplied with `_DECAY`; the authors'."""
_DECAY = 0.8


def indicator_task(count: int, resources: Resources) -> tuple[Tensor, Tensor]:
    """Return noise images (count, C, H, H) in [-1, 1], on the server's device, and labels (count,).

    Every class has as many as another, or one more.

    Parameters
    ----------
    count
        Images.
    resources
        The image's shape, the number of classes and the source of the noise.
    """
    channels, size = resources.image
    rng = resources.seeds.generator("indicator task")
    x = torch.rand(count, channels, size, size, generator=rng) * 2 - 1
    labels = torch.arange(count) % resources.classes
    return x.to(resources.device), labels[torch.randperm(count, generator=rng)]


def label_accuracies(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the accuracy (K,) float64 of each label's images; 0 for labels without any.

    Parameters
    ----------
    scores
        (m, K) logits; a row that is not finite is wrong.
    labels
        (m,).
    """
    right = (scores.argmax(1) == labels) & scores.isfinite().all(1)
    counts = labels.bincount(minlength=scores.shape[1])
    hits = labels[right].bincount(minlength=scores.shape[1])
    return hits.double() / counts.clamp_min(1)


def plant(
    model: nn.Module, x: Tensor, y: Tensor, recipe: Recipe, mu: float, rng: torch.Generator
) -> None:
    """Train a model in place on the indicator task, held near to where it begins.

    Parameters
    ----------
    model
        The aggregate, on the device of the images.
    x, y
        Indicator images and labels.
    recipe
        Rates, batch size and epochs.
    mu
        Weight of half the distance to where it begins, in the loss.
    rng
        Draws the order of the images.
    """
    model.train()
    start = [weight.detach().clone() for weight in model.parameters()]
    optimiser = torch.optim.SGD(
        model.parameters(), recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [*_MILESTONES], _DECAY)
    for _ in range(recipe.epochs):
        for rows in shuffled(len(y), recipe.batch_size, 1, rng):
            away = zip(model.parameters(), start, strict=True)
            square = torch.stack([(own - first).square().sum() for own, first in away]).sum()
            distance = square.clamp_min(1e-24).sqrt()  # whose gradient at zero is zero
            loss = cross_entropy(model, x[rows], y[rows]) + mu / 2 * distance
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
        schedule.step()
