"""How far student and teachers agree on images, without any label.

Two uses: a distillation may end once more training no longer changes the agreement, and a student
that agrees too little with its teachers never takes the place of a good model.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from entity.loops import logits

PROBES = 256
"""Generated images that the agreement is measured on where the server has no clean ones to spare.

The standard error of a share is then at most 3 points.
"""


def agreement(student: nn.Module, teachers: nn.Module, x: Tensor) -> float:
    """Return the share of images (N, C, H, W) that both put into the same class; NaN for none.

    A student whose logits are not finite agrees with nobody.
    """
    if len(x) == 0:
        return float("nan")
    own = logits(student, x)
    same = own.argmax(1) == logits(teachers, x).argmax(1)
    return (same & own.isfinite().all(1)).double().mean().item()


class Plateau:
    """Ends a distillation after a cycle that left the agreement where it was.

    Parameters
    ----------
    limit
        Change of the agreement over a cycle that counts as none; None never ends anything.
    length
        Iterations in a cycle.
    measure
        Returns the agreement now. It is asked before the first cycle and after every one.
    """

    def __init__(self, limit: float | None, length: int, measure: Callable[[], float]) -> None:
        self.limit = limit
        self.length = length
        self.measure = measure
        self.agreement = float("nan") if limit is None else measure()
        """At the last look."""

    def reached(self, iteration: int) -> bool:
        """Whether this iteration (from 1) ends a cycle, and the cycle changed nothing."""
        if self.limit is None or iteration % self.length:
            return False
        before, self.agreement = self.agreement, self.measure()
        # A fall is no plateau: high learning rates hurt first, and the next cycle mends it.
        return abs(self.agreement - before) <= self.limit


def images_to_agree_on(
    held_out: Tensor | None, sample: Callable[[torch.Generator], Tensor], rng: torch.Generator
) -> Callable[[], Tensor]:
    """Return what gives the images to measure on: clean ones that nobody learns from, or new ones.

    Parameters
    ----------
    held_out
        Clean images beside the seeds, if there are any.
    sample
        Makes images from noise; asked at every look, always with the same noise.
    rng
        One number is drawn from it where there are no held-out images.
    """
    if held_out is not None and len(held_out):
        return lambda: held_out
    seed = int(torch.randint(2**62, (), generator=rng))
    return lambda: sample(torch.Generator().manual_seed(seed))
