"""The bottom-up election of Snowball: how the clients of a round vote for one another.

Qin et al., AAAI 2024, arXiv 2309.16456. Points are given by their inner products: k-means and the
Calinski-Harabasz index depend on distances alone, so that the n points of any layer are looked at
in the n dimensions that they span.
"""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def votes_of_layer(gram: Tensor, beside: int) -> Tensor:
    """Return the votes (n,) that the clients get in one layer.

    A client clusters all clients by k-means, which starts from itself and the `beside` farthest
    from it, and votes for all in its own cluster, itself included. A vote weighs as much as the
    clustering is good: the Calinski-Harabasz index, scaled from the worst view (0) to the best (1).

    Parameters
    ----------
    gram
        (n, n) inner products of the layer's updates, from any origin.
    beside
        Clusters beside the own; at least one, at most n - 2, or nobody votes.
    """
    n = len(gram)
    votes = torch.zeros(n, dtype=torch.float64)
    if beside < 1 or beside > n - 2:
        return votes
    points = coordinates(gram)
    views = [view(points, own, beside) for own in range(n)]
    # Nine digits: views that part the clients alike differ by rounding alone.
    quality = torch.tensor([float(f"{index:.9g}") for _, index in views], dtype=torch.float64)
    low, high = quality.min(), quality.max()
    weights = (quality - low) / (high - low) if high > low else torch.ones_like(quality)
    for own, (labels, _) in enumerate(views):
        votes[torch.from_numpy(labels == labels[own])] += weights[own]
    return votes


def coordinates(gram: Tensor) -> NDArray[np.float64]:
    """Return points (n, n) with these inner products, around their mean and in a common scale."""
    centred = gram - gram.mean(0, keepdim=True) - gram.mean(1, keepdim=True) + gram.mean()
    values, vectors = torch.linalg.eigh((centred + centred.T) / 2)
    points = vectors * values.clamp_min(0).sqrt()
    scale = points.square().sum(1).quantile(0.5).sqrt()
    return (points / scale if scale > 0 else points).numpy()


def view(points: NDArray[np.float64], own: int, beside: int) -> tuple[NDArray[np.int32], float]:
    """Return how one client clusters all, as labels (n,), and the index of that clustering.

    Parameters
    ----------
    points
        (n, dimensions).
    own
        The client's row.
    beside
        Clusters beside the own.
    """
    from sklearn.cluster import KMeans  # half a second of every start, and only needed here
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import calinski_harabasz_score

    distances = np.linalg.norm(points - points[own], axis=1).round(12)
    farthest = np.argsort(-distances, kind="stable")[:beside]
    starts = points[[own, *farthest]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer places than clusters
        means = KMeans(beside + 1, init=starts, n_init=1, tol=0, random_state=0)  # pyright: ignore[reportArgumentType]
        found = means.fit(points)
    assert found.labels_ is not None
    labels = found.labels_
    if not 2 <= len(np.unique(labels)) < len(points):
        return labels, 0.0
    return labels, float(calinski_harabasz_score(points, labels))
