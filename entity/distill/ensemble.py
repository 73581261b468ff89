"""The teachers: many models that answer as one."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Norm = Literal["none", "zscore", "clip"]
Reduce = Literal["mean", "median", "trimmed"]


class Ensemble(nn.Module):
    """Frozen models whose logits are combined, by default as their plain mean (DROP).

    The members are in evaluation mode and their weights take no gradient; gradients flow through
    them to their input, which is what a generator learns from.

    Parameters
    ----------
    members
        Models that map images (b, C, H, W) to logits (b, classes).
    norm
        What is done to each member's logits first, so that none dominates by its scale: nothing;
        zero mean and the members' median spread for every sample; or clipping at the 99th
        percentile of all members' magnitudes.
    reduce
        Mean, median, or mean without the highest and the lowest fifth.
    """

    def __init__(
        self, members: Sequence[nn.Module], norm: Norm = "none", reduce: Reduce = "mean"
    ) -> None:
        super().__init__()
        self.members = list(members)  # a plain list: parameters() stays empty, nothing trains them
        self.norm: Norm = norm
        self.reduce: Reduce = reduce
        self.forwards = 0
        """Images answered so far, counted once for each member."""
        for member in self.members:
            member.eval().requires_grad_(False)

    def member_logits(self, x: Tensor) -> Tensor:
        """Return every member's logits (members, b, classes) in float32."""
        self.forwards += len(x) * len(self.members)
        return torch.stack([member(x).float() for member in self.members])

    def forward(self, x: Tensor) -> Tensor:
        """Return the combined logits (b, classes).

        Members whose logits are not finite are removed first, unless nobody would be left: one
        of them would make every answer NaN, and the gradients of the student, too.
        """
        answers = self.member_logits(x)
        sound = answers.detach().isfinite().flatten(1).all(1).tolist()
        if any(sound) and not all(sound):
            self.members = [m for m, kept in zip(self.members, sound, strict=True) if kept]
            answers = self.member_logits(x)  # anew: gradients through the others are not finite
        return combine(answers, self.norm, self.reduce)

    @torch.no_grad()
    def filter_by_bound(self, x: Tensor, bound: float = 1e3) -> list[int]:
        """Remove members whose logits on `x` are not finite or reach `bound`.

        Returns
        -------
        list of int
            Positions of the members that were removed, before the removal.
        """
        answers = self.member_logits(x).abs().amax((1, 2))
        removed = [i for i, peak in enumerate(answers.tolist()) if not peak < bound]
        self.members = [m for i, m in enumerate(self.members) if i not in removed]
        return removed


def combine(answers: Tensor, norm: Norm, reduce: Reduce) -> Tensor:
    """Combine the members' logits to those of the ensemble, (b, classes).

    Parameters
    ----------
    answers
        (members, b, classes) logits.
    norm
        What is done to each first: scaled to the median spread, clipped, or nothing.
    reduce
        The mean, the median, or the mean without a fifth at either end.
    """
    if norm == "zscore":
        spread = answers.std(2, keepdim=True).clamp_min(1e-6)
        centred = (answers - answers.mean(2, keepdim=True)) / spread
        answers = centred * spread.quantile(0.5, dim=0, keepdim=True)
    elif norm == "clip":
        limit = answers.detach().abs().flatten().quantile(0.99)
        answers = answers.clamp(-limit, limit)
    if reduce == "mean":
        return answers.mean(0)
    if reduce == "median":
        return answers.quantile(0.5, dim=0)  # the mean of the middle two for an even number
    cut = len(answers) // 5
    return answers.sort(0).values[cut : len(answers) - cut].mean(0)
