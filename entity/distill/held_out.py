"""How student and teachers do on held-out data of the server, and whether that is enough.

The original code looks at the test set here.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from entity.distill.ensemble import Ensemble
from entity.training import accuracy, logits


class Labelled(NamedTuple):
    """Held-out images (V, C, H, W) in [-1, 1] and their labels (V,)."""

    x: Tensor
    y: Tensor


class Exam:
    """Measures a distillation on held-out data; without any, every accuracy is NaN.

    Parameters
    ----------
    holdout
        What to measure on.
    ensemble, student
        Whom to measure.
    every
        Nominal queries between two looks.
    target
        Share of the teachers' accuracy that is enough; None never ends a distillation early.
    """

    def __init__(
        self,
        holdout: Labelled | None,
        ensemble: Ensemble,
        student: nn.Module,
        *,
        every: float,
        target: float | None,
    ) -> None:
        device = next(student.parameters()).device
        empty = Labelled(torch.empty(0), torch.empty(0))
        x, y = holdout or empty
        self.holdout = Labelled(x.to(device), y.to(device))
        self.ensemble = ensemble
        self.student = student
        self.every = every
        self.target = target
        self.teacher_accuracy = float("nan")
        """Measured at the first look."""
        self._looks = 0

    def accuracy(self) -> float:
        """Return the student's accuracy."""
        return accuracy(self.student, *self.holdout)

    def passed(self, queries: float) -> bool:
        """Whether a look is due after these nominal queries and finds the target reached."""
        if self.target is None or len(self.holdout.y) == 0 or queries // self.every <= self._looks:
            return False
        self._looks = int(queries // self.every)
        if self.teacher_accuracy != self.teacher_accuracy:
            answers = logits(self.ensemble, self.holdout.x)
            right = answers.argmax(1) == self.holdout.y
            self.teacher_accuracy = right.double().mean().item()
        return self.accuracy() >= self.target * self.teacher_accuracy
