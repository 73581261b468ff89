"""k-means with the number of clusters from the gap statistic.

Tibshirani, Walther and Hastie, "Estimating the Number of Clusters in a Data Set via the Gap
Statistic", JRSS B 2001.

Not scikit-learn's KMeans: the points, all reference samples and all random starts are one batch
of matrix products here, where it would take kmax x (references + 1) calls in every round; and a
torch generator, so a seed of the experiment, decides every start. A test holds the dispersion to
scikit-learn's.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

_RESTARTS = 10
"""Random starts of k-means; the best one counts."""
_TINY = 1e-12
"""Dispersion, as a share of that of one cluster, that counts as none."""


def gap_clusters(points: Tensor, kmax: int, references: int, rng: torch.Generator) -> list[int]:
    """Cluster points by k-means, with k from the gap statistic.

    Gap(k) is how far the log dispersion in k clusters is below its mean over uniform samples in
    the points' box; k is the smallest with Gap(k) >= Gap(k + 1) - s(k + 1), where s is the
    samples' standard deviation times sqrt(1 + 1 / references).

    Parameters
    ----------
    points
        (n, dimensions).
    kmax
        Most clusters, from 1 to n.
    references
        Uniform samples.
    rng
        Draws the samples and the starts of k-means.

    Returns
    -------
    list of int
        A label for each point.
    """
    low, high = points.amin(0), points.amax(0)
    uniform = torch.rand(references, *points.shape, generator=rng, dtype=points.dtype)
    data = torch.cat([points[None], low + uniform * (high - low)])
    whole = ((data - data.mean(1, keepdim=True)) ** 2).sum((1, 2)).clamp_min(1e-300)
    previous: tuple[float, list[int]] | None = None
    for k in range(1, kmax + 1):
        dispersion, labels = k_means(data, k, rng)
        logs = torch.maximum(dispersion, _TINY * whole).log()
        gap = float(logs[1:].mean() - logs[0])
        noise = float(logs[1:].std(correction=0)) * (1 + 1 / references) ** 0.5
        if previous is not None and previous[0] >= gap - noise:
            break
        previous = gap, labels[0].tolist()
    assert previous is not None, "kmax is at least 1"
    return previous[1]


def k_means(data: Tensor, k: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Run Lloyd's algorithm on several data sets at once, each from many random starts.

    Parameters
    ----------
    data
        (sets, n, dimensions).
    k
        Clusters, at most n.
    rng
        Draws the points that the centres start from.

    Returns
    -------
    tuple
        Dispersion (sets,), the summed squared distances to the centres, and labels (sets, n).
    """
    sets, n, dimensions = data.shape
    starts = torch.rand(sets, _RESTARTS, n, generator=rng).argsort(-1)[..., :k, None]
    points = data[:, None].expand(-1, _RESTARTS, -1, -1)
    centres = points.gather(2, starts.expand(-1, -1, -1, dimensions))
    nearest, labels = _assign(points, centres)
    for _ in range(100):
        member = F.one_hot(labels, k).to(data.dtype)
        counts = member.sum(2)[..., None]
        means = member.mT @ points / counts.clamp_min(1)
        moved = torch.where(counts > 0, means, centres)
        if torch.equal(moved, centres):
            break
        centres = moved
        nearest, labels = _assign(points, centres)
    dispersion, best = nearest.sum(-1).min(1)
    return dispersion, labels[torch.arange(sets), best]


def _assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared distances (..., n) to the nearest of centres (..., k, d), and which."""
    squared = ((points[..., None, :] - centres[..., None, :, :]) ** 2).sum(-1)
    return squared.min(-1)
