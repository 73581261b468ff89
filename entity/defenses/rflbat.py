"""RFLBAT: principal components, outliers, and the least aligned cluster.

Wang et al., "RFLBAT: A Robust Federated Learning Algorithm against Backdoor Attack", 2022, arXiv
2201.03772. The updates are projected on their two first principal components. Clients far from
the others there (summed distances above eps1 medians) are refused; the rest is clustered by
k-means with k from the gap statistic; attackers who pursue one aim are more alike than honest
clients, so the cluster with the *lowest* median cosine is kept; the test for outliers is repeated
in it with eps2, and who remains is averaged.

Where we leave the paper, and why:

- "at most eps medians" keeps a client; with "less than", identical updates, whose median is zero,
  would all be refused;
- with fewer than three clients left there is nothing to cluster and they are averaged;
- the number of clusters is at most one below the number of clients, so that not all are singles,
  whose alignment is not defined;
- a client's alignment is the mean of its cosines with the others of its cluster. Two public codes
  count the client itself, which lets large clusters look more alike, and one does not;
- the gap statistic is that of its own paper: squared distances, in the plane as it is, beside ten
  uniform samples. The public codes scale both axes to the same range, add up distances, and draw
  five; the paper's own text could not be had.

Cosines are those of the original updates of the same clients; a public port looks them up by the
position after the filtering.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from entity.config.schema import Count, Positive
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.server.gap_statistic import gap_clusters
from entity.server.reach import drawn_in
from entity.updates import Aggregation, Stopwatch, Updates, rows_by_id, verdicts


@dataclass(frozen=True)
class RflbatArgs:
    """Settings of RFLBAT; defaults are those of public codes but for `references`."""

    eps1: Positive = 10.0
    """Refuse clients whose summed distances are above this many medians."""
    eps2: Positive = 4.0
    """The same, within the chosen cluster."""
    kmax: Count = 9
    """Most clusters; 9 or 10 in public codes."""
    references: Count = 10
    """Uniform samples that the gap statistic compares with; 5 in public codes."""


class Rflbat(Server[RflbatArgs]):
    """Outlier removal and clustering in the plane of two principal components."""

    summary = "RFLBAT: outliers and the most aligned clusters on two principal components refused"
    paper = "Wang et al. 2022, arXiv 2201.03772"
    hyperparameters = RflbatArgs
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: RflbatArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: RflbatArgs, setting: Setting) -> None:
        """Refuse rounds too small to cluster."""
        require_clusterable("rflbat", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average the clients that pass both filters and the clustering."""
        watch = Stopwatch()
        rng = self.resources.seeds.generator("rflbat", round=updates.round)
        with watch("cluster"):
            order = rows_by_id(updates.client_ids)
            gram = drawn_in(updates).gram  # or a far one leaves no digit of the second component
            found = rflbat_filter(
                gram[order][:, order], updates.cosines[order][:, order], self.args, rng
            )
        kept = {order[place] for place in found.kept}
        accepted = [row in kept for row in range(len(updates))]
        shares = self.shares(updates, torch.tensor(accepted))
        scores = [0.0] * len(updates)
        for place, row in enumerate(order):
            scores[row] = found.scores[place]
        with watch("average"):
            state = self.average(updates, shares)
        return Aggregation(
            *state,
            verdicts(
                updates,
                accepted,
                shares,
                scores=scores,
                reasons={order[place]: reason for place, reason in found.reasons.items()},
            ),
            {"clusters": float(found.clusters)},
            watch.seconds,
        )


class Filtered(NamedTuple):
    """What the filters decided, by row."""

    kept: list[int]
    scores: list[float]
    """Summed distances to all others, in medians."""
    reasons: dict[int, str]
    clusters: int


def rflbat_filter(
    gram: Tensor, cosines: Tensor, args: RflbatArgs, rng: torch.Generator
) -> Filtered:
    """Run the three filters.

    Parameters
    ----------
    gram, cosines
        (n, n) of the updates, rows in the order of the clients' ids; the Gram matrix from any
        origin.
    args
        Thresholds.
    rng
        For k-means and the gap statistic.
    """
    points = principal_plane(gram)
    scores = relative_distances(points)
    kept = (scores <= args.eps1).nonzero().flatten().tolist()
    reasons = {row: "far from the others" for row in range(len(gram)) if row not in kept}
    if len(kept) < 3:
        return Filtered(kept, scores.tolist(), reasons, 1)
    labels = gap_clusters(points[kept], min(args.kmax, len(kept) - 1), args.references, rng)
    groups = [
        [row for row, own in zip(kept, labels, strict=True) if own == label]
        for label in dict.fromkeys(labels)
    ]
    chosen = min(groups, key=lambda group: alignment(cosines, group))
    reasons |= {row: "in a more aligned cluster" for row in kept if row not in chosen}
    near = relative_distances(points[chosen]) <= args.eps2
    reasons |= {
        row: "far from its cluster"
        for row, close in zip(chosen, near.tolist(), strict=True)
        if not close
    }
    kept = [row for row in chosen if row not in reasons]
    return Filtered(kept, scores.tolist(), reasons, len(groups))


def principal_plane(gram: Tensor) -> Tensor:
    """Return the rows' coordinates (n, 2) on their two first principal components.

    From the inner products (n, n) alone: the eigenvectors of the centred Gram matrix, times the
    roots of their eigenvalues, are the projections that a PCA of the rows gives.
    """
    n = len(gram)
    centred = gram - gram.mean(0, keepdim=True) - gram.mean(1, keepdim=True) + gram.mean()
    values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
    count = min(2, n)
    points = vectors[:, -count:].flip(1) * values[-count:].flip(0).clamp_min(0).sqrt()
    # An eigenvector's sign is arbitrary: its largest entry is made positive.
    peak = points.gather(0, points.abs().argmax(0, keepdim=True))
    return F.pad(torch.where(peak < 0, -points, points), (0, 2 - count))


def relative_distances(points: Tensor) -> Tensor:
    """Return each row's summed distance to all others (n,), in units of their median.

    Examples
    --------
    >>> relative_distances(torch.tensor([[0.0], [1.0], [3.0]]))
    tensor([1.0000, 0.7500, 1.2500])
    """
    sums = (points[:, None] - points[None]).norm(dim=-1).sum(1)
    middle = sums.quantile(0.5)
    return sums / middle if middle > 0 else torch.where(sums > 0, torch.inf, 0.0)


def alignment(cosines: Tensor, group: list[int]) -> float:
    """Return the median over a group of the mean cosine to the group's others; inf for one row."""
    if len(group) < 2:
        return float("inf")
    part = cosines[group][:, group]
    means = (part.sum(1) - part.diagonal()) / (len(group) - 1)
    return float(means.quantile(0.5))
