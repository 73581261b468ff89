"""Two groups of clients who push together, and how far apart they are.

Average linkage of what clients have in common (UPGMA; Sokal and Michener 1958) gives two groups.
They may be a coalition and the others (`judge.py`) if the members of each agree with one another
clearly more than the two groups do.

Honest clients may agree as much as attackers do, by their classes. But they agree by degrees, and
attackers are all alike: so a contrast counts beside the spread of the cosines, as an effect size
(Cohen, "Statistical Power Analysis for the Behavioral Sciences", 1988).
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from entity.updates import ClientId

LEAST = 4
"""Clients that two groups are looked for among: two of each could be told apart."""

ENOUGH = 10
"""Clients of fewer than which two groups must be further apart."""

LOOSE = 0.5
"""A member that agrees with its group by less than this share of the contrast more than with the
other group is in neither: average linkage puts everybody somewhere. Attackers who were told apart
had 0.65 of it at least, honest clients beside them 0.3."""

ALIKE = 1e-12
"""One minus the cosine of clients between whom nothing but rounding differs."""


class Groups(NamedTuple):
    """Two groups of clients, and how far apart they are."""

    smaller: frozenset[ClientId]
    larger: frozenset[ClientId]
    """No client in either, where there are no two groups of two or more."""
    contrast: float
    """Mean cosine within a group, the lower one of the two, minus that between them; NaN where
    there are no two groups."""
    effect: float
    """The contrast over the standard deviation of the cosines about their three means: within the
    one group, within the other, between them (Cohen's d). Infinite, where they do not vary."""
    loose: frozenset[ClientId] = frozenset()
    """Members of either that agree with it hardly more than with the other (`LOOSE`)."""


NONE = Groups(frozenset(), frozenset(), float("nan"), float("nan"))


def caution(clients: int) -> float:
    """Return how many times as far as usual two groups among few clients must be apart.

    Of few cosines, the best of all splits parts some widely by chance. The spread of an effect goes
    with the root of the degrees of freedom: the number of cosines less three means.

    Examples
    --------
    >>> [round(caution(clients), 2) for clients in (4, 5, 6, 8, 10, 50)]
    [3.74, 2.45, 1.87, 1.3, 1.0, 1.0]
    """

    def freedom(of: int) -> float:
        return of * (of - 1) / 2 - 3

    return (freedom(ENOUGH) / freedom(min(max(clients, LEAST), ENOUGH))) ** 0.5


def pairs(square: Tensor) -> Tensor:
    """Return the entries above the diagonal of (n, n), in a row."""
    return square[torch.ones_like(square).triu(1) > 0]


def two_groups(ids: Sequence[ClientId], cosines: Tensor, method: str = "average") -> Groups:
    """Split clients into two groups by the cosines (n, n) of what they push for.

    Of two groups of one size the one whose members agree more counts as the smaller. A client who
    agrees with nobody, so that it would be a group alone, is set aside. `method` is that of SciPy's
    `linkage`.

    Examples
    --------
    >>> alike = torch.tensor([0, 1, 0, 0, 1])
    >>> groups = two_groups(range(5), (alike[:, None] == alike).double())
    >>> sorted(groups.smaller), sorted(groups.larger), groups.contrast
    ([1, 4], [0, 2, 3], 1.0)
    """
    if len(ids) < LEAST:
        return NONE
    apart = (1 - cosines).clamp_min(0).fill_diagonal_(0)
    found = _halves(linkage(squareform(apart.numpy(), checks=False), method=method))
    if found is None:
        return NONE

    def within(group: Tensor) -> Tensor:
        return pairs(cosines[group][:, group])

    def agreement(group: Tensor) -> float:
        return float(within(group).mean())

    small, large = sorted(found, key=lambda group: (len(group), -agreement(group)))
    smaller, larger = (frozenset(ids[row] for row in group.tolist()) for group in (small, large))
    between = cosines[small][:, large].flatten()
    contrast = min(agreement(small), agreement(large)) - float(between.mean())
    about = torch.cat([each - each.mean() for each in (within(small), within(large), between)])
    spread = float(about.square().mean().sqrt())
    effect = contrast / spread if spread > 0 else inf * contrast
    margins = torch.full((len(ids),), inf).double()
    for own, other in ((small, large), (large, small)):
        alike = (cosines[own][:, own].sum(1) - cosines[own, own]) / (len(own) - 1)
        margins[own] = alike - cosines[own][:, other].mean(1)
    loose = {
        client for client, by in zip(ids, margins.tolist(), strict=True) if by < LOOSE * contrast
    }
    return Groups(smaller, larger, contrast, effect, frozenset(loose))


def _halves(tree: NDArray[np.float64]) -> tuple[Tensor, Tensor] | None:
    """Return the rows of the first two branches, from the root on, of two leaves or more each."""
    leaves = len(tree) + 1
    under = [[leaf] for leaf in range(leaves)]
    for one, other, _, _ in tree:
        under.append(under[int(one)] + under[int(other)])
    for one, other, distance, count in reversed(tree):  # a leaf joins what was merged before
        few, many = sorted((under[int(one)], under[int(other)]), key=len)
        if count < LEAST or distance <= ALIKE:
            return None
        if len(few) > 1:
            return torch.tensor(sorted(few)), torch.tensor(sorted(many))
    return None
