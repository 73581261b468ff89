import numpy as np
import pytest
from scipy.stats import ks_2samp, levene, ttest_ind
from sklearn.cluster import AgglomerativeClustering
from sklearn.decomposition import PCA
from sklearn.preprocessing import scale

from entity.server.hlbim import first_component, hlbim, significant, smaller_group, suspects


def test_the_metric_by_hand():
    """Two samples of class 4 and one of class 9; one layer."""
    distances = np.array([[[1.0], [2.0], [4.0]], [[3.0], [1.0], [6.0]]])
    found = hlbim(distances, 0, [4, 4, 9])
    # r - 1 = 2, -1/2, 1/2; squared with their signs 4, -1/4, 1/4
    assert found.tolist() == [[0, 0], [(4 - 0.25) / 2, 0.25]]


def test_the_metric_is_the_papers_loops():
    rng = np.random.default_rng(0)
    distances, labels, own = rng.random((5, 12, 3)), rng.integers(4, size=12), 2
    rows = []
    for model in range(5):
        row = []
        for label in sorted(set(labels)):
            for layer in range(3):
                values = []
                for sample in np.flatnonzero(labels == label):
                    r = distances[model, sample, layer] / distances[own, sample, layer]
                    values.append(abs(r - 1) * (r - 1))
                row.append(np.mean(values))
        rows.append(row)
    np.testing.assert_allclose(hlbim(distances, own, labels), rows)


def test_where_the_own_model_has_not_moved_nothing_is_told():
    distances = np.array([[[0.0, 1.0]], [[5.0, 1.0]], [[0.0, 3.0]]])
    assert hlbim(distances, 0, [0]).tolist() == [[0, 0], [0, 0], [0, 4]]
    assert suspects(hlbim(np.zeros((6, 3, 2)), 1, [0, 1, 1]), 1, 0.01, 5.5) == []


def test_the_largest_numbers_leave_numbers():
    distances = np.ones((8, 4, 2))
    distances[5] = np.finfo(np.float32).max
    distances[0] = 1e-300
    found = hlbim(distances, 0, [0, 0, 1, 1])
    assert np.isfinite(found**2).all()
    assert hlbim(np.ones((3, 0, 2)), 0, []).shape == (3, 0)
    assert suspects(np.ones((3, 0)), 0, 0.01, 5.5) == []


@pytest.mark.parametrize("seed", range(4))
def test_the_component_is_scikit_learns(seed):
    rows = np.random.default_rng(seed).normal(size=(9, 20)) * np.arange(1, 21)
    found, at_own = first_component(rows, rows[3])
    expected = PCA().fit_transform(scale(rows))[:, 0]
    np.testing.assert_allclose(np.abs(found), np.abs(expected), rtol=1e-7, atol=1e-9)
    assert at_own == pytest.approx(found[3])
    away = found - np.median(found)
    assert away[np.abs(away).argmax()] < 0


def test_columns_without_anything_to_tell_are_left_out():
    assert first_component(np.full((4, 3), 0.1), np.zeros(3))[0].tolist() == [0] * 4
    values, _ = first_component(np.array([[1, 0.1], [2, 0.1], [6, 0.1]]), np.zeros(2))
    assert values[2] < values[1] < values[0]


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_scikit_learns_single_linkage(seed):
    values = np.random.default_rng(seed).normal(size=11)
    labels = AgglomerativeClustering(n_clusters=2, linkage="single").fit_predict(values[:, None])
    expected = np.flatnonzero(labels == np.bincount(labels).argmin())
    assert sorted(smaller_group(values, 0.0)) == expected.tolist()


def test_of_equal_groups_the_one_farther_from_the_own_model_is_left_out():
    values = np.array([0.0, 9.0, 0.1, 9.1])
    assert sorted(smaller_group(values, 1.0)) == [1, 3]
    assert sorted(smaller_group(values, 8.0)) == [0, 2]


@pytest.mark.parametrize("seed", range(6))
def test_the_tests_are_scipys_at_the_edge(seed):
    """Of ten values none is three deviations off, and no whisker of 99 ranges is passed."""
    values = np.random.default_rng(seed).normal(size=10) ** 3
    away = values - np.median(values)
    groups = away[away >= 0], -away[away < 0]
    least = min(float(test(*groups).pvalue) for test in (ttest_ind, levene, ks_2samp))
    assert significant(values, least * 1.001, 99)
    assert not significant(values, least * 0.999, 99)


def test_the_box_plot_and_three_deviations():
    values = np.array([0.0, 1, 2, 3, 4, 5, 6, 17])  # quartiles 1.75 and 5.25
    assert significant(values, 1e-9, 3.3)
    assert not significant(values, 1e-9, 3.4)
    many = np.array([0.0, 1] * 20 + [4.0])
    assert abs(many[-1] - many.mean()) > 3 * many.std()
    assert significant(many, 1e-9, 99)
    assert not significant(np.array([0.0, 1] * 20), 1e-9, 99)
    assert not significant(np.zeros(5), 0.01, 5.5)


def test_poisoned_models_of_two_kinds_are_pruned_one_after_the_other():
    """Eleven benign; four far, five less far, which hide beside the far ones."""
    metric = np.random.default_rng(1).normal(size=(20, 30))
    metric[11:15] += 200
    metric[15:] += 12
    metric[0] = 0
    first = smaller_group(first_component(np.delete(metric, 0, 0), metric[0])[0], 0.0)
    assert sorted(first) == [10, 11, 12, 13]  # of the others: the far ones alone
    assert suspects(metric, 0, 0.01, 5.5) == list(range(11, 20))
    assert suspects(metric[:11], 0, 0.01, 5.5) == []


def test_of_too_many_the_farthest_are_pruned():
    """Of seven others three at most: both of the far pair, and the farther of the next one."""
    metric = np.array([0, 0, 0.01, 0.02, 10, 11.5, 100, 101.0])[:, None]
    assert suspects(metric, 0, 0.01, 0.5) == [5, 6, 7]


def test_a_voter_suspects_nobody_where_there_is_no_majority_to_tell():
    for n in (1, 2):
        assert suspects(np.arange(n)[:, None] * 100.0, 0, 0.01, 5.5) == []
