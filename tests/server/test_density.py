import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import cdist, squareform
from sklearn.cluster import HDBSCAN

from entity.server.density import (
    cosine_distances,
    density_labels,
    euclidean,
    majority,
)
from entity.updates import rows_by_id


def test_equal_points_are_at_no_distance_however_many_they_are():
    """Regression: of more than 25 points inner products left 1e-8, which is no zero."""
    points = torch.randn(1, 50, generator=torch.Generator().manual_seed(1)).double()
    points = points.repeat(30, 1)
    points[:10] += 1e-9
    found = euclidean(points)
    assert not found[:10, :10].any()
    assert not found[10:, 10:].any()
    np.testing.assert_allclose(found, cdist(points, points), rtol=1e-12, atol=0)


def directions(seed: int, n: int = 10) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(n, 3))
    rows[: n // 2 + 1] += [2, 0, 0]
    return torch.from_numpy(rows)


def by_single_linkage(distances: torch.Tensor) -> list[int]:
    """The first component of more than half of the rows, as the allowed distance grows."""
    tree = linkage(squareform(distances.numpy(), checks=False), "single")
    for height in tree[:, 2]:
        labels = fcluster(tree, height, "distance")
        sizes = np.bincount(labels)
        if sizes.max() > len(distances) // 2:
            return np.flatnonzero(labels == sizes.argmax()).tolist()
    raise AssertionError("the whole is a component")


def test_rows_go_by_number_and_then_by_text():
    assert rows_by_id([10, 9, "x", "10", -1]) == [4, 1, 0, 3, 2]


def test_cosine_distances_are_scipys():
    rows = directions(0)
    expected = cdist(rows, rows, "cosine")
    np.testing.assert_allclose(cosine_distances(rows @ rows.T), expected, atol=1e-12)


def test_a_zero_vector_is_far_from_others_and_at_another_zero_vector():
    rows = torch.tensor([[0.0, 0], [1, 0], [0, 0]]).double()
    expected = [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    assert cosine_distances(rows @ rows.T).tolist() == expected


@pytest.mark.parametrize("seed", range(30))
def test_the_majority_is_the_first_single_linkage_component_above_half(seed):
    rows = directions(seed, 7 + seed % 6)
    distances = cosine_distances(rows @ rows.T)
    assert majority(distances, range(len(rows))) == by_single_linkage(distances)


def test_the_distance_matrix_is_not_clustered_as_features():
    """Regression: several FLAME codes give HDBSCAN the matrix as if its rows were features."""
    rows = directions(10)
    distances = cosine_distances(rows @ rows.T)
    wrong = HDBSCAN(min_cluster_size=6, min_samples=2, allow_single_cluster=True, copy=True)
    as_features = np.flatnonzero(wrong.fit_predict(distances.numpy()) >= 0).tolist()
    assert majority(distances, range(10)) == [0, 1, 2, 3, 4, 9] != as_features


def test_labels_are_scikit_learns_with_the_point_itself_counted():
    rng = np.random.default_rng(3)
    points = np.concatenate([rng.normal(size=(8, 2)), rng.normal(size=(7, 2)) + 9, [[40, 40]]])
    judge = HDBSCAN(min_cluster_size=5, min_samples=4, copy=True).fit_predict(points)
    ours = density_labels(
        torch.from_numpy(cdist(points, points)),
        range(16),
        5,
        min_samples=3,
        allow_single_cluster=False,
    )
    assert ours == judge.tolist()
    assert sorted(set(ours)) == [-1, 0, 1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), permutation=st.permutations(range(9)))
def test_the_order_of_the_clients_does_not_matter(seed, permutation):
    rows = torch.randint(-1, 2, (9, 2), generator=torch.Generator().manual_seed(seed)).double()
    distances = torch.cdist(rows, rows)  # on a grid, so full of ties
    ids = [f"c{i}" for i in range(9)]
    kept = {ids[row] for row in majority(distances, ids)}
    moved = list(permutation)
    again = majority(distances[moved][:, moved], [ids[row] for row in moved])
    assert {ids[moved[row]] for row in again} == kept


@pytest.mark.parametrize("n", range(1, 12))
def test_identical_clients_are_all_kept(n):
    assert majority(torch.zeros(n, n), range(n)) == list(range(n))


def test_fewer_than_four_clients_are_not_split():
    points = torch.tensor([[0.0], [0.0], [9.0]])
    assert majority(torch.cdist(points, points), [0, 1, 2]) == [0, 1, 2]


@pytest.mark.parametrize("n", [1, 2, 4])
def test_too_few_for_a_cluster_are_in_none(n):
    assert density_labels(torch.zeros(n, n), range(n), 5) == [-1] * n


def test_rounding_does_not_split_identical_clients():
    noise = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)) * 1e-15
    assert majority((noise + noise.T).fill_diagonal_(0), range(10)) == list(range(10))


def test_clusters_are_numbered_by_the_lowest_id_and_not_by_the_order():
    points = torch.cat([torch.zeros(5), torch.ones(5)])[:, None] + torch.arange(10)[:, None] / 100
    distances = torch.cdist(points, points)
    labels = density_labels(distances, range(10), 3)
    backwards = density_labels(distances.flip(0, 1), range(9, -1, -1), 3)
    assert len(set(labels)) == 2
    assert backwards == labels[::-1]
