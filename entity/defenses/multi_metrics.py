"""Multi-Metrics: the clients that stand out least by three distances at once.

Huang et al., "Multi-metrics Adaptively Identifies Backdoors in Federated Learning", ICCV 2023,
arXiv 2303.06601. A client is described by the Manhattan and the Euclidean norm of its update and
by the cosine of its model to the global one. x_i sums each metric's differences to all others,
and delta_i = sqrt(x_i' Sigma^-1 x_i) weighs the three by their covariance; the share p of clients
with the lowest delta is averaged.

Where we leave the paper and its code, and why:

- the covariance is inverted as a correlation, regularised and by pseudo-inverse, so that the
  metrics' scales do not matter and a singular matrix is no failure (the code raises an error);
- a client that is far out in a metric is drawn in, or two of the three would tell no other apart;
- at least one client is kept (the code keeps none of three);
- metrics are of each client's update, and their differences are summed; the code sums pairwise
  Manhattan distances, differences of norms and squared cosine distances of the models.

The form is not centred and the metrics are nearly collinear: among few clients the ranking need
not follow the distance from the rest.
"""

import logging
from dataclasses import dataclass
from math import floor
from typing import Annotated

import torch
from torch import Tensor

from entity.config.schema import Range
from entity.layout import blocks
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.server.reach import typical
from entity.updates import Aggregation, Stopwatch, Updates, rows_by_id, verdicts

log = logging.getLogger("entity")

_FEW = 10
"""Clients in a round below which three collinear metrics say little."""
_RIDGE = 1e-8
"""Added to the diagonal of the correlation matrix."""
_FAR = 1e3
"""Typical deviations from a metric's median beyond which a client is drawn in: the ridge would hide
how the others differ beside one that is farther."""


@dataclass(frozen=True)
class MultiMetricsArgs:
    """Settings of Multi-Metrics; defaults are the paper's."""

    p: Annotated[float, Range(0, 1, above=True)] = 0.3
    """Share of the clients that is averaged, rounded down, at least one."""


class MultiMetrics(Server[MultiMetricsArgs]):
    """The mean of the clients with the lowest whitened score."""

    summary = "Multi-Metrics: keep the share that stands out least by three whitened distances"
    paper = "Huang et al. 2023, arXiv 2303.06601"
    revision = 2
    hyperparameters = MultiMetricsArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: MultiMetricsArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: MultiMetricsArgs, setting: Setting) -> None:
        """Refuse rounds in which three metrics have no covariance; warn of small ones."""
        require_clusterable("multi_metrics", setting)
        if setting.round_size < _FEW:
            log.warning(
                "federation.round_size = %d: the ranking of multi_metrics is unreliable below %d",
                setting.round_size,
                _FEW,
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the clients with the lowest scores, ties by the lowest id."""
        watch = Stopwatch()
        with watch("score"):
            scores = whitened_scores(metrics(updates)).tolist()
        count = max(1, floor(self.args.p * len(updates) + 1e-9))
        # Nine digits: scores that differ by rounding alone are a tie.
        ranking = sorted(
            rows_by_id(updates.client_ids), key=lambda row: float(f"{scores[row]:.9g}")
        )
        kept = set(ranking[:count])
        accepted = [row in kept for row in range(len(updates))]
        shares = self.shares(updates, torch.tensor(accepted))
        with watch("average"):
            state = self.average(updates, shares)
        reason = f"not among the {count} lowest scores"
        return Aggregation(
            *state,
            verdicts(
                updates,
                accepted,
                shares,
                scores=scores,
                reasons=dict.fromkeys(range(len(updates)), reason),
            ),
            seconds=watch.seconds,
        )


def metrics(updates: Updates) -> Tensor:
    """Return (n, 3) float64: ||delta||_1, ||delta||_2 and cos(w_i, g); 0 for a zero vector."""
    n = len(updates)
    manhattan, dot, squares = (torch.zeros(n, dtype=torch.float64) for _ in range(3))
    square = torch.zeros((), dtype=torch.float64)
    for columns in blocks(updates.weights.shape[1]):
        start = updates.global_weights[columns].double()
        block = updates.weights[:, columns].double()
        manhattan += (block - start).abs().sum(1)
        dot += block @ start
        squares += (block**2).sum(1)
        square += start @ start
    scale = (squares * square).sqrt()
    cosine = torch.where(scale > 0, dot / scale, 0)
    return torch.stack([manhattan, updates.norms, cosine], 1)


def whitened_scores(features: Tensor) -> Tensor:
    """Return delta (n,) of features (n, m): how far each row stands out, whitened.

    x_i = sum_j |f_i - f_j| by column, and delta_i = sqrt(x_i' Sigma^-1 x_i) with the covariance
    Sigma of x. Columns in which all rows stand out alike say nothing and are left out. A row beyond
    `_FAR` typical deviations from the median of a column is drawn in to that.
    """
    n = len(features)
    middle = features.median(0).values
    limit = torch.tensor([_FAR * typical(far) for far in (features - middle).abs().T]).double()
    features = features.clamp(middle - limit, middle + limit)
    gaps = (features[:, None] - features[None]).abs().sum(1)
    if n < 2:
        return torch.zeros(n, dtype=torch.float64)
    spread = gaps.std(0)
    # Of equal rows the features differ in their last digits, by the place in the matrix.
    telling = spread > 1e-12 * torch.maximum(gaps.amax(0), n * features.abs().amax(0))
    scaled = gaps[:, telling] / spread[telling]
    centred = scaled - scaled.mean(0)
    correlation = centred.T @ centred / (n - 1)
    inverse = torch.linalg.pinv(correlation + _RIDGE * torch.eye(len(correlation)).double())
    return ((scaled @ inverse) * scaled).sum(1).clamp_min(0).sqrt()
