"""How far from the rest an update may lie in arithmetic that cancels.

A client may send any finite number. Inner products in float64 hold 16 digits: beside an update that
is 1e16 times as far away as the others, sums and differences that involve it hold nothing of the
rest. So where a rule forms such sums, updates beyond `REACH` times the typical distance from the
most central one are drawn in to that, on the straight line to it. A rule that bounds the
influence of the farthest does not notice; one that compares distances still finds it far away.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from entity.updates import ClientId, Updates, rows_by_id

REACH = 1e4
"""Typical distances beyond which an update is drawn in; its square leaves half of the digits."""


class DrawnIn(NamedTuple):
    """A round whose farthest updates are nearer, as inner products; no model is copied."""

    centre: int
    """Row of the most central client: the least median distance to all, itself included."""
    factors: Tensor
    """(n,) share of the way from the centre at which each client lies now; 1 but for far ones."""
    gram: Tensor
    """(n, n) float64: inner products of the differences from the centre, drawn in."""

    @property
    def distances(self) -> Tensor:
        """(n, n) float64: Euclidean distances between the clients."""
        squares = self.gram.diagonal()
        squared = squares[:, None] + squares[None, :] - 2 * self.gram
        return squared.clamp_min(0).fill_diagonal_(0).sqrt()

    def of_models(self, shares: Tensor) -> Tensor:
        """Return the convex weights (n,) of the models that amount to those of the drawn in."""
        own = shares * self.factors
        own[self.centre] += 1 - own.sum()
        return own


def drawn_in(updates: Updates) -> DrawnIn:
    """Draw in the updates that are too far away for inner products.

    The typical distance is the median of those from the centre, or where that is zero the least
    that is not.
    """
    return drawn_in_points(updates.gram, updates.distances, updates.client_ids)


def drawn_in_points(gram: Tensor, distances: Tensor, client_ids: Sequence[ClientId]) -> DrawnIn:
    """Draw in points that are given by their inner products, as `drawn_in` does updates.

    Parameters
    ----------
    gram
        (n, n) float64 inner products, from any origin.
    distances
        (n, n) float64 Euclidean distances.
    client_ids
        Whose they are; of two equally central ones the first by id is the centre.
    """
    medians = distances.median(1).values.tolist()
    centre = min(rows_by_id(client_ids), key=medians.__getitem__)
    away = distances[centre]
    limit = REACH * typical(away)
    factors = torch.where(away > limit, limit / away, 1.0)
    moved = gram - gram[centre][None, :] - gram[:, centre][:, None] + gram[centre, centre]
    return DrawnIn(centre, factors, moved * factors[:, None] * factors[None, :])


def typical(sizes: Tensor) -> float:
    """Return the median of sizes (n,), or where that is zero the least above; 0 without any.

    Examples
    --------
    >>> typical(torch.tensor([0.0, 1.0, 3.0, 1e30])), typical(torch.tensor([0.0, 0.0, 0.0, 5.0]))
    (1.0, 5.0)
    """
    middle = float(sizes.median())
    if middle > 0:
        return middle
    above = sizes[sizes > 0]
    return float(above.min()) if len(above) else 0.0
