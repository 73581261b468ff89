"""k-means with the number of clusters from the gap statistic.

Tibshirani, Walther and Hastie, "Estimating the Number of Clusters in a Data Set via the Gap
Statistic", JRSS B 2001. The k-means is scikit-learn's, with its careful starts (k-means++) and run
until nothing moves; a generator of the experiment gives every call its seed. FLDetector's code
takes the logarithm of the samples' mean dispersion instead of the mean of the logarithms: in random
rounds of ten to twenty clients 0.3 to 2.3 % of its decisions are others.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RESTARTS = 10
"""Starts of k-means; the best one counts."""
_FEWEST = 3
"""Scores, at least, of which some may be a group of higher ones."""
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
        Draws the samples and the seeds of k-means.

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
        fits = [k_means(part, k, rng) for part in data.double().numpy()]
        dispersion = torch.tensor([spread for spread, _ in fits], dtype=whole.dtype)
        logs = torch.maximum(dispersion, _TINY * whole).log()
        gap = float(logs[1:].mean() - logs[0])
        noise = float(logs[1:].std(correction=0)) * (1 + 1 / references) ** 0.5
        if previous is not None and previous[0] >= gap - noise:
            break
        previous = gap, fits[0][1].tolist()
    assert previous is not None, "kmax is at least 1"
    return previous[1]


def k_means(
    points: NDArray[np.float64], k: int, rng: torch.Generator
) -> tuple[float, NDArray[np.int32]]:
    """Return the dispersion, the summed squared distances to the centres, and labels (n,).

    Parameters
    ----------
    points
        (n, dimensions).
    k
        Clusters, at most n; points in fewer places make fewer.
    rng
        Draws the seed of the starts.
    """
    from sklearn.cluster import KMeans  # half a second of every start, and only needed here
    from sklearn.exceptions import ConvergenceWarning

    seed = int(torch.randint(2**31 - 1, (), generator=rng))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer places than clusters
        means = KMeans(k, n_init=_RESTARTS, tol=0, random_state=seed)  # pyright: ignore[reportArgumentType]
        found = means.fit(points)
    assert found.labels_ is not None
    assert found.inertia_ is not None
    return float(found.inertia_), found.labels_


def higher_group(scores: Tensor, kmax: int, references: int, rng: torch.Generator) -> Tensor:
    """Return who (n,) bool is in the group of higher scores; nobody where there is one group.

    Parameters
    ----------
    scores
        (n,) finite.
    kmax, references, rng
        Of the gap statistic, and of k-means.
    """
    nobody = torch.zeros(len(scores), dtype=torch.bool)
    if len(scores) < _FEWEST or scores.min() == scores.max():
        return nobody
    points = scores.double()[:, None]
    if len(set(gap_clusters(points, min(kmax, len(points)), references, rng))) < 2:
        return nobody
    labels = torch.from_numpy(k_means(points.numpy(), 2, rng)[1]) == 1
    higher = scores[labels].mean() > scores[~labels].mean()
    return labels if higher else ~labels
