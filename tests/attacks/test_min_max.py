import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from entity.attacks.min_max import MinMax, MinMaxArgs, largest_gamma
from entity.seeding import Seeds

T13 = np.array([(1, 0), (1.2, 0), (0.8, 0), (1, 0.2)])


def lie(make_round, benign: np.ndarray, attackers: int = 2, **args) -> np.ndarray:
    deltas = np.vstack([benign, 9 * np.ones((attackers, benign.shape[1]))])
    malicious = list(range(len(benign), len(deltas)))
    updates = make_round(deltas, origin=[0.0] * benign.shape[1])
    MinMax.collude(MinMaxArgs(**args), updates, malicious, Seeds(0))
    sent = updates.deltas.double().numpy()
    np.testing.assert_allclose(sent[: len(benign)], benign, rtol=1e-6)
    assert (sent[malicious] == sent[-1]).all()
    return sent[-1]


def direction(benign: np.ndarray, kind: str) -> np.ndarray:
    mean = benign.mean(0)
    return {"std": -benign.std(0), "unit": -mean, "sign": -np.sign(mean)}[kind]


def excess(point: np.ndarray, benign: np.ndarray, objective: str) -> float:
    """How far the paper's condition is exceeded; at most 0 where it holds."""
    if objective == "max":
        return cdist([point], benign).max() - pdist(benign).max()
    squared = cdist(benign, benign, "sqeuclidean").sum(1).max()
    return cdist([point], benign, "sqeuclidean").sum() - squared


def test_a_lone_update_that_is_known_has_no_room_around_it(make_round, caplog):
    updates = make_round([[1.0, 2.0], [3.0, 4.0]])
    MinMax.collude(MinMaxArgs(knowledge="own"), updates, [0], Seeds(0))
    assert "Min-Max sends the mean of one known update: no attack" in caplog.text
    caplog.clear()
    MinMax.collude(MinMaxArgs(), updates, [0], Seeds(0))
    assert "no attack" in caplog.text  # one benign client is one update, too


def test_t13_the_unit_vector_goes_0198232_far(make_round):
    mean = T13.mean(0)
    gamma = np.linalg.norm(lie(make_round, T13, perturbation="unit") - mean)
    assert gamma == pytest.approx(0.198232, abs=1e-5)
    p = -mean / np.linalg.norm(mean)
    centred = torch.from_numpy(T13 - mean)
    found = largest_gamma(centred @ centred.T, centred @ torch.from_numpy(p), 1.0, "max")
    assert found == pytest.approx(0.198232, abs=1e-6)
    assert pdist(T13).max() == pytest.approx(0.4)


@settings(max_examples=40)
@given(
    k=st.integers(2, 7),
    seed=st.integers(0, 999),
    objective=st.sampled_from(["max", "sum"]),
    kind=st.sampled_from(["std", "unit", "sign"]),
)
def test_the_condition_holds_at_gamma_and_fails_just_beyond(make_round, k, seed, objective, kind):
    benign = np.random.default_rng(seed).normal(1, 1, (k, 5)).astype(np.float32).astype(float)
    sent = lie(make_round, benign, objective=objective, perturbation=kind)
    mean, p = benign.mean(0), direction(benign, kind)
    gamma = (sent - mean) @ p / (p @ p)
    np.testing.assert_allclose(sent, mean + gamma * p, atol=1e-5)
    assert gamma > 0
    assert excess(mean + gamma * (1 - 1e-4) * p, benign, objective) <= 0
    assert excess(mean + gamma * (1 + 1e-3) * p, benign, objective) > 0


def test_the_paper_s_bisection_ends_at_the_same_gamma(make_round):
    benign = np.random.default_rng(1).normal(1, 1, (6, 40)).astype(np.float32).astype(float)
    p, low, high = direction(benign, "std"), 0.0, 64.0
    for _ in range(60):
        middle = (low + high) / 2
        if excess(benign.mean(0) + middle * p, benign, "max") <= 0:
            low = middle
        else:
            high = middle
    np.testing.assert_allclose(lie(make_round, benign), benign.mean(0) + low * p, atol=1e-5)


def test_min_sum_goes_as_far_as_the_farthest_honest_update_and_not_the_nearest(make_round):
    # Of 0, 0 and 3 the last has the largest sum of squared distances, 9 + 9. The lie at -1 has
    # 1 + 1 + 16, as much; at 0, where the authors' smallest sum would leave it, it has 9.
    line = np.array([[0.0], [0.0], [3.0]])
    assert lie(make_round, line, objective="sum", perturbation="sign") == pytest.approx([-1.0])
    benign = np.random.default_rng(3).normal(1, 1, (5, 8)).astype(np.float32).astype(float)
    for kind in ("std", "unit", "sign"):
        sent = lie(make_round, benign, objective="sum", perturbation=kind)
        away = np.linalg.norm(benign - benign.mean(0), axis=1)
        assert np.linalg.norm(sent - benign.mean(0)) == pytest.approx(away.max(), rel=1e-5)


def test_wide_models_are_done_in_blocks_with_the_same_result(make_round, monkeypatch):
    benign = np.random.default_rng(2).normal(1, 1, (4, 23)).astype(np.float32).astype(float)
    whole = lie(make_round, benign)
    monkeypatch.setattr("entity.layout.BLOCK", 5)
    np.testing.assert_allclose(lie(make_round, benign), whole, rtol=1e-6)


def test_colluders_look_at_their_own_updates_alone(make_round):
    deltas = np.vstack([T13, 50 * np.ones((6, 2))])
    updates = make_round(deltas, origin=[0.0, 0.0])
    args = MinMaxArgs(knowledge="colluders", perturbation="unit")
    MinMax.collude(args, updates, [0, 1, 2, 3], Seeds(0))
    gap = updates.deltas[0].double().numpy() - T13.mean(0)
    assert np.linalg.norm(gap) == pytest.approx(0.198232, abs=1e-5)


@pytest.mark.parametrize("kind", ["std", "unit", "sign"])
@pytest.mark.parametrize("objective", ["max", "sum"])
@pytest.mark.parametrize(
    "benign",
    [np.ones((1, 3)), np.ones((3, 3)), np.zeros((2, 3))],
    ids=["alone", "identical", "zero"],
)
def test_where_there_is_no_room_the_mean_is_sent(make_round, benign, objective, kind):
    sent = lie(make_round, benign, objective=objective, perturbation=kind)
    np.testing.assert_allclose(sent, benign[0], atol=1e-6)


def test_the_order_of_the_clients_does_not_matter(make_round):
    a = lie(make_round, T13)
    b = lie(make_round, T13[[3, 1, 0, 2]])
    np.testing.assert_allclose(a, b, rtol=1e-6)


def test_a_share_of_gamma_stays_closer(make_round):
    whole, half = (lie(make_round, T13, gamma_share=share) for share in (1.0, 0.5))
    np.testing.assert_allclose(half - T13.mean(0), (whole - T13.mean(0)) / 2, atol=1e-6)
