"""Indicators of 3DFed: numbers planted in a model, by which its sender reads what became of it."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from entity.layout import ParamSpec, Slot
from entity.training import cross_entropy

FACTOR, LEAST, CANDIDATES, MOST_CLIPPED = 1e5, 1e-3, 10, 0.8
"""What a planted number is multiplied with, what it is in place of 0, candidates for each place,
and the share of the largest feedback up to which a model counts as clipped: the authors' code."""

Fate = Literal["accepted", "clipped", "rejected"]


def quiet_layer(spec: ParamSpec, head: str) -> Slot:
    """Return where indicators go: the last convolution, else the last weight before the head.

    Of those that are trained, where any are.
    """
    matrices = [slot for slot in spec.parameters if len(slot.shape) > 1]
    weights = [slot for slot in matrices if not slot.frozen] or matrices
    hidden = [slot for slot in weights if slot.name != f"{head}.weight"] or weights
    return ([slot for slot in hidden if len(slot.shape) > 2] or hidden)[-1]


def curvature(model: nn.Module, name: str, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the sums of the rows of a layer's Hessian (L,), of the losses of all batches.

    Parameters
    ----------
    model
        The classifier; used in evaluation mode, which it is left in.
    name
        A parameter of L entries.
    batches
        Images and labels.
    """
    model.eval()
    parameter = dict(model.named_parameters())[name]
    total = torch.zeros_like(parameter)
    for x, y in batches:
        loss = cross_entropy(model, x, y)
        (gradient,) = torch.autograd.grad(loss, parameter, create_graph=True)
        if gradient.requires_grad:
            (second,) = torch.autograd.grad(
                gradient.sum(), parameter, allow_unused=True, materialize_grads=True
            )
            total += second
    return total.detach().flatten().cpu()


def quiet_places(size: Tensor, curved: Tensor, count: int) -> list[int]:
    """Return the places for so many indicators: the least |curved| of the 10 count least sizes.

    Parameters
    ----------
    size
        (L,) how much each entry moves in training, poisoned and clean.
    curved
        (L,) curvature.
    count
        Places wanted; all L at most.

    Examples
    --------
    >>> quiet_places(torch.tensor([5.0, 1.0, 2.0]), torch.tensor([0.0, -3.0, 2.0]), 2)
    [0, 2]
    """
    moving = np.argsort(size.numpy(), kind="stable")[: CANDIDATES * count]
    bent = curved.abs().numpy()
    return sorted(moving.tolist(), key=lambda i: (bent[i], size[i].item()))[:count]


def planted(value: float) -> float:
    """Return what is sent in an indicator's place instead of a move."""
    return value * FACTOR or LEAST


def fates(feedback: Sequence[float], threshold: float) -> list[Fate] | None:
    """Return what became of the models; None where the server seems to add noise.

    Parameters
    ----------
    feedback
        For each model the global model's move in its indicator's place over what it sent there.
    threshold
        Feedback at which a model was accepted at all; what is above 1 or below minus that comes
        from noise. What is not finite says that the model was rejected.

    Examples
    --------
    >>> fates([0.1, 0.05, 1e-6], 1e-5)
    ['accepted', 'clipped', 'rejected']
    >>> fates([0.1, -0.05], 1e-5) is None
    True
    """
    known = [one for one in feedback if np.isfinite(one)]
    if any(one > 1 or one < -threshold for one in known):
        return None
    clipped = MOST_CLIPPED * max(known, default=0.0)
    return [
        "rejected"
        if not np.isfinite(one) or one <= threshold
        else "clipped"
        if one <= clipped
        else "accepted"
        for one in feedback
    ]


def tuned_alphas(
    alphas: Sequence[float], passed: Sequence[bool], least: float, rng: np.random.Generator
) -> list[float]:
    """Return the groups' next weights of energy against norm.

    Near the least one with which a group passed; between the two least where all groups passed; at
    random where none did.

    Parameters
    ----------
    alphas, passed
        Of each group, and whether most of its models were accepted.
    least
        Smallest weight that is drawn at random.
    rng
        Draws.
    """
    good = sorted(alpha for alpha, fine in zip(alphas, passed, strict=True) if fine)
    if len(good) == 1 == len(alphas):
        return list(alphas)
    if not good:
        low, high = least, 1.0
    elif len(good) == len(alphas):
        low, high = good[:2]
    else:
        low, high = good[0], good[0] + 0.1
    return [float(np.clip(rng.uniform(low, high), 0.01, 0.99)) for _ in alphas]
