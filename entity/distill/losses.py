"""Losses of data-free distillation."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from entity.devices import to_device

LossType = Literal["l1", "kl_div"]


def disagreement(teacher: Tensor, student: Tensor, kind: LossType, temperature: float) -> Tensor:
    """Return how far a student's logits are from the teacher's.

    Parameters
    ----------
    teacher, student
        (b, classes) logits T and S.
    kind
        `l1`: the mean of |T - S| over batch and classes; `kl_div`: KL(T || S) of the
        distributions at the temperature, times its square, averaged over the batch.
    temperature
        Divides the logits of `kl_div`.

    Examples
    --------
    >>> t, s = torch.tensor([[2.0, 0.0]]), torch.zeros(1, 2)
    >>> float(disagreement(t, s, "l1", 1.0))
    1.0
    """
    if kind == "l1":
        return F.l1_loss(student, teacher)
    return (
        F.kl_div(
            F.log_softmax(student / temperature, 1),
            F.log_softmax(teacher / temperature, 1),
            reduction="batchmean",
            log_target=True,
        )
        * temperature**2
    )


def gradient_penalty(
    critic: Callable[[Tensor], Tensor], fake: Tensor, real: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the mean of (|| gradient of the critic || - 1)^2 between fake and real images.

    Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, arXiv 1704.00028.
    Every sample is taken at its own random point on the line between its pair.

    Parameters
    ----------
    critic
        From images to scores (b,).
    fake, real
        (b, C, H, W) images, in pairs.
    generator
        Source of the points.
    """
    share = to_device(torch.rand(len(fake), 1, 1, 1, generator=generator), fake.device)
    between = (share * fake + (1 - share) * real).requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return ((gradient.flatten(1).norm(dim=1) - 1) ** 2).mean()
