import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import calinski_harabasz_score

from entity.server.election import coordinates, view, votes_of_layer


def transcription(rows: np.ndarray, beside: int) -> np.ndarray:
    """The election on the differences themselves, as the paper's code goes about it."""
    groups, scores = [], []
    for own in range(len(rows)):
        away = rows[own] - rows
        far = np.argsort(np.linalg.norm(away, axis=1))[-beside:]
        starts = away[[own, *far]]
        labels = KMeans(beside + 1, init=starts, n_init=1).fit_predict(away)
        scores.append(calinski_harabasz_score(away, labels))
        groups.append(np.flatnonzero(labels == labels[own]))
    weights = (np.array(scores) - min(scores)) / (max(scores) - min(scores))
    votes = np.zeros(len(rows))
    for weight, group in zip(weights, groups, strict=True):
        votes[group] += weight
    return votes


def votes(rows: np.ndarray, beside: int) -> np.ndarray:
    points = torch.from_numpy(rows)
    return votes_of_layer(points @ points.T, beside).numpy()


@pytest.mark.parametrize(("n", "beside"), [(9, 2), (12, 3), (20, 4)])
def test_the_votes_are_the_transcriptions(n, beside):
    rows = np.random.default_rng(n).normal(size=(n, 40))
    rows[: n // 3] += 2
    np.testing.assert_allclose(votes(rows, beside), transcription(rows, beside), atol=1e-9)


def test_points_keep_their_distances_but_for_the_scale():
    rows = torch.randn(7, 30, generator=torch.Generator().manual_seed(0)).double()
    points = torch.from_numpy(coordinates(rows @ rows.T))
    ratio = torch.cdist(points, points)[0, 1:] / torch.cdist(rows, rows)[0, 1:]
    torch.testing.assert_close(ratio, ratio[:1].expand(6))


def test_a_close_crowd_gets_the_votes_and_who_is_far_gets_none_of_theirs():
    rows = np.random.default_rng(1).normal(size=(10, 5)) * 0.1
    rows[8:] += 10
    labels, quality = view(coordinates(torch.from_numpy(rows @ rows.T)), 0, 1)
    assert labels[:8].tolist() == [labels[0]] * 8
    assert labels[8] == labels[9] != labels[0]
    assert quality > 100


def test_equally_good_views_have_votes_of_one_weight():
    """Regression: the authors' code divides by the difference of best and worst."""
    corners = np.array([[0.0, 0], [0, 1], [9, 0], [9, 1]])
    assert votes(corners, 1).tolist() == [2, 2, 2, 2]
    assert votes(np.ones((5, 3)), 2).tolist() == [5] * 5


@pytest.mark.parametrize(("n", "beside"), [(1, 1), (2, 1), (3, 2), (5, 0)])
def test_with_too_few_for_the_clusters_nobody_votes(n, beside):
    assert votes(np.eye(n), beside).tolist() == [0] * n
