"""What the cosines of clients owe to how much data each has.

Who has more data takes more steps, and ends in another direction than who has fewer: along a path
that bends. So without any attack those who have much are alike, round after round, and so are those
who have little. Both are by how far the logarithms of their amounts are from the mean: what two
clients have in common for that grows with the product of their distances. How much of it there is,
is found by the regression of the cosines on these products (a confounder taken out of a matrix of
similarities; Smouse, Long and Sokal, "Multiple regression and correlation extensions of the Mantel
test of matrix correspondence", Systematic Zoology, 1986). Where all have the same amount, nothing
is taken out.

A client may register what it does not have. One that does shall not hide what the others owe: the
regression leaves out one client, whoever fits the others worst.
"""

import torch
from torch import Tensor

FAR = 8.0
"""How many times as much as usual, or as little, an amount counts at most."""

MOST = 1.0
"""Cosine, at most, that two clients owe to having e times as much data as usual. So amounts that
hardly differ account for hardly anything; honest federations had up to 0.6."""

LEAST = 4
"""Clients that a regression needs, as it leaves out one."""

VARIED = 1e-4
"""Variance of the products below which amounts say nothing: all are within a tenth or so."""


def without_amounts(cosines: Tensor, samples: Tensor) -> Tensor:
    """Return cosines (n, n) of clients without what their amounts of data (n,) account for.

    Examples
    --------
    >>> group = torch.tensor([1.0, 1.0, 1.0, -1.0, -1.0, -1.0])
    >>> alike, samples = torch.outer(group, group) / 4, 250 + 150 * group
    >>> alike[0, 1:].tolist()
    [0.25, 0.25, -0.25, -0.25, -0.25]
    >>> without_amounts(alike, samples)[0, 1:].round(decimals=2)
    tensor([-0.0500, -0.0500, -0.0500, -0.0500, -0.0500])
    """
    amounts = samples.double().clamp_min(1)
    logs = (amounts / amounts.quantile(0.5)).clamp(1 / FAR, FAR).log()
    n = len(logs)
    if n < LEAST or logs.min() == logs.max():
        return cosines
    logs -= logs.mean()
    products = torch.outer(logs, logs).fill_diagonal_(0)
    slope = min(max(_slope(products, cosines), 0.0), MOST)
    owed = slope * (products - products.sum() / (n * (n - 1)))
    return cosines - owed.fill_diagonal_(0).to(cosines)


def _slope(x: Tensor, y: Tensor) -> float:
    """Return the slope of pairs y on x, both (n, n), without the client that fits them worst."""
    y = y.double().clone().fill_diagonal_(0)

    def without_each(pairs: Tensor) -> Tensor:
        """Return the mean over all pairs without a client, (n,)."""
        return (pairs.sum() - pairs.sum(0) - pairs.sum(1)) / ((len(pairs) - 1) * (len(pairs) - 2))

    of_x, of_y = without_each(x), without_each(y)
    spread = without_each(x * x) - of_x**2
    shared = without_each(x * y) - of_x * of_y
    slopes = torch.where(spread > VARIED, shared / spread, 0)
    left = without_each(y * y) - of_y**2 - slopes * shared
    return float(slopes[left.argmin()])
