"""Who pushes together, round after round.

What attackers teach is the same in every round and the same for all of them; the noise of
training is neither. So what a client's updates are like (`sketches.py`) is added up over the
rounds. Average linkage of the cosines of the sums (UPGMA; Sokal and Michener 1958) gives two
groups. They may be a coalition and the others (`judge.py`) if the members of each agree with one
another clearly more than the two groups do.

There are two parts (`visible.py`). What a client's own mix of classes makes of its update is for
the most part in the one that clean images show, where honest clients may agree as much as
attackers do. But they agree by degrees, and attackers are all alike: so a contrast counts beside
the spread of the cosines, as an effect size (Cohen, "Statistical Power Analysis for the Behavioral
Sciences", 1988). In both parts, what amounts of data account for is no agreement (`amounts.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from entity.server.amounts import without_amounts
from entity.server.sketches import unit
from entity.updates import ClientId, rows_by_id

LEAST = 4
"""Clients that two groups are looked for among: two of each could be told apart."""

MOST = 1_000
"""Clients that are remembered: of more, those who came last. Their sums take 100 MB, and two groups
of them some seconds, whoever else has ever come."""

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


def two_groups(
    sums: Mapping[ClientId, Tensor],
    method: str = "average",
    samples: Mapping[ClientId, float] | None = None,
) -> Groups:
    """Split clients into two groups by the cosines of their sums (D,).

    What they owe to their numbers of `samples` is taken out, where these are given. Of two groups
    of one size the one whose members agree more counts as the smaller. A client who agrees with
    nobody, so that it would be a group alone, is set aside. `method` is that of SciPy's `linkage`.

    Examples
    --------
    >>> a, b = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 1.0])
    >>> groups = two_groups({0: a, 1: b, 2: a, 3: a, 4: b})
    >>> sorted(groups.smaller), sorted(groups.larger), round(groups.contrast, 2)
    ([1, 4], [0, 2, 3], 0.9)
    """
    ids = list(sums)
    ids = [ids[row] for row in rows_by_id(ids)]
    if len(ids) < LEAST:
        return NONE
    rows = unit(torch.stack([sums[client] for client in ids]).double())
    cosines = rows @ rows.T
    if samples is not None:
        cosines = without_amounts(cosines, torch.tensor([samples[client] for client in ids]))
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


class Coalition:
    """The sums of descriptions of the clients seen so far, and the two groups among them.

    Parameters
    ----------
    enough
        Contrast from which on one group is a coalition, however much the cosines vary.
    least, effect
        Contrast and effect size from which on, together, it is one.
    patience
        Rounds of a client before it is compared.
    memory
        What a round of a client still counts one round of its own later.
    """

    def __init__(
        self, enough: float, patience: int, memory: float, least: float = inf, effect: float = inf
    ) -> None:
        self.enough, self.least, self.effect = enough, least, effect
        self.patience, self.memory = patience, memory
        self.method = "average"
        """Of SciPy's `linkage`."""
        self.sums: dict[ClientId, Tensor] = {}
        self.seen: dict[ClientId, int] = {}
        self.samples: dict[ClientId, float] = {}
        """How much data each had when it came last."""

    def observe(
        self,
        clients: Sequence[ClientId],
        described: Tensor,
        samples: Tensor,
        known: Collection[ClientId] = (),
        most: int = MOST,
    ) -> None:
        """Add a round.

        Parameters
        ----------
        clients
            Who came.
        described
            (n, D) their descriptions.
        samples
            (n,) how much data each has.
        known
            Clients who are remembered however long they have been away.
        most
            How many are remembered, beside those; who came are, however many they are.
        """
        for client, row, amount in zip(clients, described, samples.tolist(), strict=True):
            before = self.sums.pop(client, None)  # and to the end: it came last
            self.sums[client] = row.clone() if before is None else self.memory * before + row
            self.seen[client] = self.seen.get(client, 0) + 1
            self.samples[client] = amount
        away = [client for client in self.sums if client not in known]
        for client in away[: -max(most, len(clients))]:
            del self.sums[client], self.seen[client], self.samples[client]

    @property
    def known(self) -> list[ClientId]:
        """Who can be compared."""
        return [c for c, rounds in self.seen.items() if rounds >= self.patience]

    def groups(self, without: Collection[ClientId] = ()) -> Groups:
        """Return the two groups of all who can be compared, without some."""
        sums = {c: self.sums[c] for c in self.known if c not in without}
        return two_groups(sums, self.method, self.samples)

    def clear(self, groups: Groups, times: float = 1) -> bool:
        """Whether two groups are far enough apart for one of them to be a coalition.

        Where fewer than `ENOUGH` clients can be compared, more is asked (`caution`); those who have
        been taken out count as well, for whom `times` rises.

        Parameters
        ----------
        groups
            The two groups.
        times
            How many times as far as two groups of all clients need be.
        """
        times *= caution(len(self.known))
        contrast, effect = groups.contrast / times, groups.effect / times
        return contrast >= self.enough or (contrast >= self.least and effect >= self.effect)

    def pardon(self, client: ClientId) -> str:
        """Forget a client's sum and its rounds, and say how many they were."""
        for known in (self.sums, self.samples):
            known.pop(client, None)
        rounds = self.seen.pop(client, 0)
        return f"what it pushed for in {rounds} rounds" if rounds else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the clients' sums, numbers of rounds and amounts of data."""
        clients = list(self.sums)
        return {
            "clients": clients,
            "sums": [self.sums[client] for client in clients],
            "seen": [self.seen[client] for client in clients],
            "samples": [self.samples[client] for client in clients],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.sums = dict(zip(state["clients"], state["sums"], strict=True))
        self.seen = {c: int(n) for c, n in zip(state["clients"], state["seen"], strict=True)}
        self.samples = dict(zip(state["clients"], state["samples"], strict=True))
