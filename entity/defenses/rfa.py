"""RFA: the geometric median of the updates.

Pillutla et al., "Robust Aggregation for Federated Learning", IEEE TSP 2022, arXiv 1912.13445. The
next model minimises the weighted sum of Euclidean distances to the clients' models, found by the
smoothed Weiszfeld algorithm: average, weigh every client by 1 / max(nu, distance), repeat.

- Every iterate is a convex combination of the updates, so that the iteration runs on its n
  weights and the pairwise distances: O(n^2) a step instead of O(nP).
- So steps cost nothing here, and there are many. In the paper each is a round of secure
  averaging; it stops after a few, or when the objective hardly changes. Neither is robust: one
  update far away inflates the objective until any change is small against it.
- Far updates are drawn in (`entity.server.reach`): from about 1e16 times the others' distances
  on, the steps would lose all digits of these, and the median depends on the direction alone.
- alpha_i is uniform by default and n_i / sum(n_j), the paper's, with `server.weighting = samples`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from entity.config.schema import Count, Positive
from entity.server.contract import Needs, Server
from entity.server.reach import drawn_in
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class GeometricMedianArgs:
    """Settings of RFA."""

    nu: Positive = 1e-6
    """Distance below which a client gains no more weight, in the units of the weights."""
    iterations: Count = 100
    """Steps; the paper's budget is 3."""


def weiszfeld(
    squared_distances: Tensor, alphas: Tensor, nu: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Run smoothed Weiszfeld steps from the weighted mean.

    With z = sum_j c_j x_j, the distances are |x_i - z|^2 = (D c)_i - c' D c / 2.

    Parameters
    ----------
    squared_distances
        (n, n) float64, D.
    alphas
        (n,) convex weights of the rows in the objective sum_i alpha_i |x_i - z|.
    nu
        Smallest distance that is divided by.
    iterations
        Number of steps.

    Returns
    -------
    tuple of Tensor
        (n,) convex weights c of the rows, and their distances (n,) to z.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [0.0], [3.0]], dtype=torch.float64)
    >>> weights, _ = weiszfeld((points - points.T) ** 2, torch.ones(3) / 3, 1e-6, iterations=1)
    >>> round(float(weights @ points.flatten()), 6)
    0.6
    """
    weights = alphas = alphas.double()
    distances = _to_centre(squared_distances, weights)
    for _ in range(iterations):
        pulls = alphas / distances.clamp_min(nu)
        weights = pulls / pulls.sum()
        distances = _to_centre(squared_distances, weights)
    return weights, distances


def _to_centre(squared: Tensor, weights: Tensor) -> Tensor:
    moments = squared @ weights
    return (moments - weights @ moments / 2).clamp_min(0).sqrt()


class GeometricMedian(Server[GeometricMedianArgs]):
    """The approximate geometric median of the clients' models."""

    summary = "RFA: geometric median by the smoothed Weiszfeld algorithm"
    paper = "Pillutla et al. 2022, arXiv 1912.13445"
    hyperparameters = GeometricMedianArgs

    @classmethod
    def needs(cls, args: GeometricMedianArgs) -> Needs:
        """Single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average with the weights of the geometric median; nobody is refused."""
        watch = Stopwatch()
        everybody = torch.ones(len(updates), dtype=torch.bool)
        alphas = self.shares(updates, everybody)
        if alphas.sum() == 0:  # nobody has registered a sample
            alphas = everybody / len(updates)
        args = self.args
        with watch("weiszfeld"):
            near = drawn_in(updates)
            far = near.factors < 1
            squared = (near.distances if far.any() else updates.distances) ** 2
            shares, distances = weiszfeld(squared, alphas, args.nu, args.iterations)
            if far.any():
                shares = near.of_models(shares)
                distances = torch.where(far, updates.distances[near.centre], distances)
        with watch("average"):
            state = self.average(updates, shares)
        judged = verdicts(updates, everybody.tolist(), shares, scores=distances.tolist())
        objective = float(alphas.double() @ distances)
        return Aggregation(*state, judged, {"objective": objective}, watch.seconds)
