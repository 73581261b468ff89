"""Bulyan: Krum repeated, then a trimmed mean around the median.

El Mhamdi et al., "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018,
arXiv 1802.07927. Krum picks one client at a time from those that are left, n - 2f times; then
every coordinate is the mean of the n - 4f values of the picked ones that are closest to their
median. For n >= 4f + 3.

Scores are computed anew for the clients that are left, from distances computed once. Where values
below and above the median tie for the last places, either side gets half, so that no side is
preferred. A benchmark's code takes positions in the shrunk list for clients, and n - 2f closest
values, which trims nothing. Buffers as for the median, over the picked clients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from entity.defenses.krum import krum_scores, ranked, squared_distances
from entity.defenses.median import CoordinateServer, middle
from entity.server.bound import BoundArgs, BoundedServer, Condition
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class BulyanArgs(BoundArgs):
    """Settings of Bulyan: the bound f."""


def bulyan_selection(squared: Tensor, f: int, count: int, clients: Sequence[ClientId]) -> list[int]:
    """Return the rows that Krum picks one after the other.

    Parameters
    ----------
    squared
        (n, n) squared distances.
    f
        Bound on the malicious rows.
    count
        How many to pick; n - 2f in the paper.
    clients
        (n,) ids, for ties.

    Examples
    --------
    >>> points = torch.tensor([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [1000.0]])
    >>> bulyan_selection((points - points.T) ** 2, f=1, count=5, clients=range(7))
    [2, 3, 1, 4, 0]
    """
    left, picked = list(range(len(squared))), list[int]()
    while len(picked) < count:
        scores = krum_scores(squared[left][:, left], f)
        best = left[ranked(scores, [clients[row] for row in left])[0]]
        left.remove(best)
        picked.append(best)
    return picked


def mean_around_median(values: NDArray[Any], count: int) -> NDArray[Any]:
    """Return means (c,) of the `count` values closest to the median of sorted values (c, n).

    Examples
    --------
    >>> float(mean_around_median(np.array([[0.0, 4.0, 5.0, 6.0, 9.0]]), count=4)[0])
    6.0
    """
    if count < 1:
        return middle(values)
    centre = middle(values)[:, None]
    # The closest values are neighbours in the sorted row: a window over them moves up as long as
    # the value that it leaves is farther away than the one that it takes in. Where both are
    # equally close it may stop or go on, so the first and the last such window are averaged.
    left, taken = values.shape[1] - count, slice(count, None)
    below, above = centre - values[:, :left], values[:, taken] - centre
    first, last = (below > above).sum(1), (below >= above).sum(1)
    means = _window_means(values, first, count)
    tied = (first < last).nonzero()[0]
    means[tied] += (_window_means(values[tied], last[tied], count) - means[tied]) / 2
    return means


def _window_means(values: NDArray[Any], starts: NDArray[Any], count: int) -> NDArray[Any]:
    window = starts[:, None] + np.arange(count)
    return np.take_along_axis(values, window, axis=1).mean(axis=1, dtype=np.float64)


class Bulyan(BoundedServer[BulyanArgs], CoordinateServer[BulyanArgs]):
    """Repeated Krum and a coordinate-wise mean around the median."""

    summary = "Bulyan: repeated Krum, then a mean around the median of each coordinate"
    paper = "El Mhamdi et al. 2018, arXiv 1802.07927"
    hyperparameters = BulyanArgs
    condition = Condition(4, 3)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Pick, then combine; with too few clients for n - 4f values, the median of the picked."""
        watch = Stopwatch()
        n = len(updates)
        f = self.bound(n, updates.round_size)
        with watch("select"):
            squared = squared_distances(updates)
            scores: list[float] = krum_scores(squared, f).tolist()
            picked = bulyan_selection(squared, f, max(1, n - 2 * f), updates.client_ids)
        with watch("combine"):
            state = self.reduce(
                updates, lambda values: mean_around_median(values, n - 4 * f), sorted(picked)
            )
        chosen = set(picked)
        accepted = [row in chosen for row in range(n)]
        shares = torch.tensor([float("nan") if kept else 0.0 for kept in accepted])
        reasons = dict.fromkeys(range(n), f"not picked by {len(picked)} rounds of Krum")
        judged = verdicts(updates, accepted, shares, scores=scores, reasons=reasons)
        return Aggregation(*state, judged, self.report(n, f), watch.seconds)
