"""How far student and teachers agree on images, without any label.

Two uses: a distillation may end once more training no longer changes the agreement, and a student
that agrees too little with its teachers never takes the place of a good model.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from entity.distill.ensemble import Ensemble
from entity.training import logits

PROBES = 256
"""Generated images that the agreement is measured on where the server has no clean ones to spare.

The standard error of a share is then at most 3 points.
"""


def agreement(student: nn.Module, teachers: nn.Module, x: Tensor) -> float:
    """Return the share of images that both put into the same class; NaN for no image.

    Parameters
    ----------
    student
        One whose logits are not finite agrees with nobody.
    teachers
        What it is compared with.
    x
        (N, C, H, W) images.
    """
    return _alike(student, x, _classes(teachers, x)) if len(x) else float("nan")


def _classes(teachers: nn.Module, x: Tensor) -> Tensor:
    return logits(teachers, x).argmax(1)


def _alike(student: nn.Module, x: Tensor, classes: Tensor) -> float:
    own = logits(student, x)
    return ((own.argmax(1) == classes) & own.isfinite().all(1)).double().mean().item()


LEARNT = 0.5
"""Agreement below which a student has learnt too little for a plateau to be its last."""


class Plateau:
    """Ends a distillation after a cycle that left the agreement where it was.

    Not while the student agrees on less than half of the images: a student that starts from random
    weights may take a cycle to begin at all.

    Parameters
    ----------
    limit
        Change of the agreement over a cycle that counts as none; None never ends anything.
    ends
        The last iteration (from 1) of every cycle.
    measure
        Returns the agreement now. It is asked before the first cycle and after every one.
    """

    def __init__(
        self, limit: float | None, ends: Sequence[int], measure: Callable[[], float]
    ) -> None:
        self.limit = limit
        self.ends = frozenset(ends)
        self.measure = measure
        self.agreement = float("nan") if limit is None else measure()
        """At the last look."""

    def reached(self, iteration: int) -> bool:
        """Whether this iteration (from 1) ends a cycle, and the cycle changed nothing."""
        if self.limit is None or iteration not in self.ends:
            return False
        before, self.agreement = self.agreement, self.measure()
        # A fall is no plateau: high learning rates hurt first, and the next cycle makes up for it.
        return abs(self.agreement - before) <= self.limit and self.agreement >= LEARNT


def comparison(
    student: nn.Module,
    teachers: Ensemble,
    held_out: Tensor | None,
    sample: Callable[[torch.Generator], Tensor],
    rng: torch.Generator,
) -> Callable[[], float]:
    """Return what measures the agreement again and again, while student and generator learn.

    Parameters
    ----------
    student, teachers
        Whom to compare.
    held_out
        Clean images that nobody learns from, if there are any: the teachers answer them once, and
        anew when one of them has been left out.
    sample
        Else makes images from noise; asked at every look, always with the same noise.
    rng
        One number is drawn from it where there are no held-out images.
    """
    if held_out is None or not len(held_out):
        seed = int(torch.randint(2**62, (), generator=rng))
        return lambda: agreement(student, teachers, sample(torch.Generator().manual_seed(seed)))
    known: dict[int, Tensor] = {}

    def measure() -> float:
        members = len(teachers.members)
        if members not in known:
            known[members] = _classes(teachers, held_out)
        return _alike(student, held_out, known[members])

    return measure
