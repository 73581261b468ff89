import logging

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.config.schema import ConfigError
from entity.defenses.multi_metrics import MultiMetrics, MultiMetricsArgs, metrics, whitened_scores
from entity.server.contract import Setting


def transcription(features: np.ndarray) -> np.ndarray:
    """The paper's formula with the plain inverse of the covariance, for regular ones."""
    gaps = np.array([[np.abs(f - column).sum() for f in column] for column in features.T]).T
    inverse = np.linalg.inv(np.cov(gaps.T))
    return np.array([np.sqrt(x @ inverse @ x) for x in gaps])


def features(seed: int, n: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(size=(n, 3))


def run(updates, resources, p: float = 0.3):
    return MultiMetrics(MultiMetricsArgs(p=p), resources).aggregate(updates)


def kept(answer) -> set:
    return {verdict.client for verdict in answer.verdicts if verdict.accepted}


@pytest.mark.parametrize("seed", range(5))
def test_the_scores_are_those_of_the_formula(seed):
    found = whitened_scores(torch.from_numpy(features(seed)))
    np.testing.assert_allclose(found, transcription(features(seed)), rtol=1e-4)


def test_the_metrics_by_hand(make_updates):
    updates = make_updates([[3, 4], [0, 0], [-1, 0]], origin=[1.0, 0.0])
    expected = [[7, 5, 4 / 32**0.5], [0, 0, 1], [1, 1, 0]]  # the last model is zero
    torch.testing.assert_close(metrics(updates), torch.tensor(expected).double())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 500), column=st.integers(0, 2), factor=st.sampled_from([1e-6, 1e6]))
def test_the_scale_of_a_metric_does_not_matter(seed, column, factor):
    first = features(seed)
    second = first.copy()
    second[:, column] *= factor
    a, b = (whitened_scores(torch.from_numpy(f)) for f in (first, second))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_collinear_metrics_are_no_failure():
    """Regression: the published code inverts a singular matrix."""
    column = torch.arange(6.0).double()[:, None]
    scores = whitened_scores(column.repeat(1, 3))
    assert scores.isfinite().all()
    torch.testing.assert_close(scores, scores.flip(0))


def test_the_lowest_share_is_averaged(make_updates, make_resources):
    deltas = torch.randn(12, 40, generator=torch.Generator().manual_seed(4))
    deltas *= torch.linspace(0.1, 3, 12)[:, None]
    updates = make_updates(deltas)
    answer = run(updates, make_resources(updates))
    scores = transcription(metrics(updates).numpy())
    expected = set(np.argsort(scores)[:3].tolist())  # floor(3.6)
    assert kept(answer) == expected
    mean = updates.weights[sorted(expected)].mean(0)
    torch.testing.assert_close(answer.weights, mean)
    assert answer.verdicts[0].score == pytest.approx(scores[0], rel=1e-4)


@pytest.mark.parametrize(
    ("n", "p", "count"), [(10, 0.3, 3), (3, 0.3, 1), (50, 0.58, 29), (4, 1, 4)]
)
def test_the_number_kept_is_a_floor_and_at_least_one(make_updates, make_resources, n, p, count):
    """Regression: the published code keeps nobody of three, and then fails."""
    updates = make_updates(torch.randn(n, 5, generator=torch.Generator().manual_seed(n)))
    assert len(kept(run(updates, make_resources(updates), p))) == count


def test_duplicates_tie_and_the_lowest_ids_win(make_updates, make_resources):
    updates = make_updates([[1.0, 2.0]] * 6, ids=[9, 4, 7, 1, 8, 3])
    answer = run(updates, make_resources(updates), 0.5)
    assert kept(answer) == {1, 3, 4}
    assert len({verdict.score for verdict in answer.verdicts}) == 1


@pytest.mark.parametrize("n", range(3, 12))
def test_of_equal_clients_the_lowest_ids_win_in_any_order(n, make_updates, make_resources):
    row = np.random.default_rng(n).normal(size=666)
    for ids in (tuple(range(n)), tuple(range(n))[::-1]):
        updates = make_updates(torch.from_numpy(row).float().repeat(n, 1), ids=ids)
        answer = run(updates, make_resources(updates))
        assert kept(answer) == set(range(max(1, int(0.3 * n))))


def test_few_clients_are_refused_or_warned_of(caplog):
    with pytest.raises(ConfigError, match="multi_metrics needs at least 4"):
        MultiMetrics.check(MultiMetricsArgs(), Setting(3, 0, (1, 4)))
    with caplog.at_level(logging.WARNING, "entity"):
        MultiMetrics.check(MultiMetricsArgs(), Setting(10, 0, (1, 4)))
        assert not caplog.records
        MultiMetrics.check(MultiMetricsArgs(), Setting(9, 0, (1, 4)))
    assert "unreliable below 10" in caplog.text


@pytest.mark.parametrize("far", [None, 1e3, 1e6, 1e12, 1e30])
@pytest.mark.parametrize("seed", range(3))
def test_a_decoy_does_not_bring_in_who_is_far_by_two_of_three(
    seed, far, make_updates, make_resources
):
    """Beside the decoy the norms of the others must still tell the colluder apart."""
    rng = np.random.default_rng(seed)
    start = rng.normal(size=50)
    deltas = 0.1 * rng.normal(size=(10, 50))
    models = start + deltas
    cosines = models @ start / np.linalg.norm(models, axis=1) / np.linalg.norm(start)
    typical = next(int(row) for row in cosines.argsort()[4:] if row not in (0, 9))
    deltas[0] = 3 * models[typical] - start  # far away, at a typical angle
    if far is not None:
        deltas[9] = far * np.sign(deltas[9])
    updates = make_updates(deltas, origin=start)
    answer = MultiMetrics(MultiMetricsArgs(), make_resources(updates)).aggregate(updates)
    assert not answer.verdicts[0].accepted
    assert not answer.verdicts[9].accepted or far is None


@pytest.mark.parametrize("far", [1e8, 1e16, 3e38])
def test_a_far_decoy_does_not_leave_the_choice_to_the_ids(far, make_updates, make_resources):
    rng = np.random.default_rng(0)
    honest = 0.1 * rng.normal(size=(15, 30)) + 0.1
    colluders = 0.3 * rng.normal(size=(4, 30)) + 0.3
    rows = np.vstack([colluders, honest, np.full((1, 30), far)])
    updates = make_updates(rows)
    answer = MultiMetrics(MultiMetricsArgs(), make_resources(updates)).aggregate(updates)
    accepted = [verdict.client for verdict in answer.verdicts if verdict.accepted]
    assert len(accepted) == 6
    assert min(accepted) >= 4
    assert max(accepted) < 19
