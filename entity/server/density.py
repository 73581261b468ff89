"""Density clustering of a round's clients, and the majority among them.

Campello et al., "Hierarchical Density Estimates for Data Clustering, Visualization, and Outlier
Detection", ACM TKDD 2015 (HDBSCAN). FLAME and FreqFed average its majority cluster, DeepSight
asks it for several clusterings.

HDBSCAN is given distances as distances (`metric="precomputed"`). Published codes pass the matrix as
if its rows were features, which clusters something else.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from entity.config.schema import ConfigError
from entity.server.contract import Setting
from entity.updates import ClientId, rows_by_id

LEAST_CLUSTERED = 4
"""Clients in a round below which closeness means nothing."""

_DIGITS = 12
"""Decimals of a distance that count: the rest is rounding, and must not break ties."""


def cosine_distances(gram: Tensor) -> Tensor:
    """Return 1 - cos (n, n) from inner products (n, n), float64.

    The zero vector is at distance 1 from all others, and at 0 from another zero vector.
    """
    norms = gram.diagonal().clamp_min(0).sqrt()
    zero = norms == 0
    scale = torch.where(zero, 0, 1 / norms)
    cosines = gram * scale[:, None] * scale[None, :]
    cosines[zero[:, None] & zero[None, :]] = 1
    return (1 - cosines).clamp(0, 2).fill_diagonal_(0)


def euclidean(points: Tensor) -> Tensor:
    """Return the distances (n, n) of points (n, d), zero where they are equal.

    Of more than 25 points `torch.cdist` would take them from inner products, which leaves rounding.
    """
    return torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")


def density_labels(
    distances: Tensor,
    client_ids: Sequence[ClientId],
    min_cluster_size: int,
    min_samples: int = 1,
    *,
    allow_single_cluster: bool = True,
) -> list[int]:
    """Cluster by HDBSCAN.

    Parameters
    ----------
    distances
        (n, n), symmetric.
    client_ids
        Whose rows they are.
    min_cluster_size
        Smallest group that counts as a cluster.
    min_samples
        Neighbours, beside itself, that make a client's surroundings dense (the papers' library
        counts so; scikit-learn counts the client, too).
    allow_single_cluster
        Whether all clients may be one cluster.

    Returns
    -------
    list of int
        A cluster's number for every row, -1 for those in none.
    """
    from sklearn.cluster import HDBSCAN  # half a second of every start, and only needed here

    n = len(client_ids)
    if n < max(2, min_cluster_size):
        return [-1] * n
    order = rows_by_id(client_ids)
    rounded = np.round(distances[order][:, order].double().numpy(), _DIGITS)
    clusters = HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min(n, min_samples + 1),
        metric="precomputed",
        allow_single_cluster=allow_single_cluster,
        copy=True,  # pyright: ignore[reportArgumentType]
    ).fit_predict((rounded + rounded.T) / 2)
    labels = [-1] * n
    for row, label in zip(order, clusters.tolist(), strict=True):
        labels[row] = int(label)
    return labels


def majority(distances: Tensor, client_ids: Sequence[ClientId]) -> list[int]:
    """Return the rows of the cluster that holds more than half of the clients.

    All rows where there is no such cluster, and among fewer than four clients, where closeness
    means nothing.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [0.1], [0.2], [9.0], [0.1]])
    >>> majority(torch.cdist(points, points), range(5))
    [0, 1, 2, 4]
    """
    n = len(client_ids)
    everybody = list(range(n))
    if n < LEAST_CLUSTERED:
        return everybody
    labels = density_labels(distances, client_ids, n // 2 + 1)
    return [row for row in everybody if labels[row] >= 0] or everybody


def separation(labels: list[int]) -> Tensor:
    """Return 0 for pairs of rows in one cluster and 1 for others (n, n); label -1 is no cluster.

    Examples
    --------
    >>> separation([0, -1, 0])
    tensor([[0., 1., 0.],
            [1., 0., 1.],
            [0., 1., 0.]], dtype=torch.float64)
    """
    own = torch.tensor(labels)
    together = (own[:, None] == own[None]) & (own[:, None] >= 0)
    return 1.0 - (together | torch.eye(len(own), dtype=torch.bool)).double()


def require_clusterable(name: str, setting: Setting, least: int = LEAST_CLUSTERED) -> None:
    """Refuse rounds of fewer than `least` clients.

    Parameters
    ----------
    name
        The defense, for the message.
    setting
        Says how many clients a round has.
    least
        How many it needs.

    Raises
    ------
    ConfigError
        If the round is smaller.
    """
    if setting.round_size < least:
        raise ConfigError(
            f"federation.round_size = {setting.round_size}: {name} needs at least {least} clients "
            "in a round to tell a majority; raise it."
        )
