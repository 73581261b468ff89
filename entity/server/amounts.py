"""What the cosines of clients owe to how much data each has.

Who has more data takes more steps, and ends in another direction than who has fewer: along a path
that bends. So without any attack those who have much are alike, round after round, and so are those
who have little. Both are by how far they are from the usual amount: what two clients have in common
for that grows with the product of their distances. How much of it there is, is found by the
regression of the cosines on these products (a confounder taken out of a matrix of similarities;
Smouse, Long and Sokal, "Multiple regression and correlation extensions of the Mantel test of matrix
correspondence", Systematic Zoology, 1986). Where all have the same amount, nothing is taken out.
"""

import torch
from torch import Tensor

MOST = 1.0
"""Cosine, at most, that two clients owe to having e times as much data as usual. So amounts that
hardly differ account for hardly anything; honest federations had up to 0.6."""


def without_amounts(cosines: Tensor, samples: Tensor) -> Tensor:
    """Return cosines (n, n) of clients without what their amounts of data (n,) account for.

    Examples
    --------
    >>> cosines = torch.tensor([[1.0, 0.3, -0.15], [0.3, 1.0, -0.15], [-0.15, -0.15, 1.0]])
    >>> without_amounts(cosines, torch.tensor([400.0, 400.0, 100.0])).round(decimals=3).abs()
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    logs = samples.double().clamp_min(1).log()
    logs -= logs.mean()
    above = torch.ones_like(cosines).triu(1) > 0
    products = torch.outer(logs, logs)
    varied = products[above] - products[above].mean()
    squares = float(varied.square().sum())
    if squares == 0:
        return cosines
    slope = float(varied @ cosines[above].double()) / squares
    owed = min(max(slope, 0.0), MOST) * (products - products[above].mean())
    return cosines - owed.fill_diagonal_(0).to(cosines)
