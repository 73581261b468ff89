import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from entity.attacks.alie import Alie, AlieArgs, z_max
from entity.seeding import Seeds

HONEST = np.array([(1, 0, 2), (3, 0, 2), (2, 3, 2), (2, 1, 6), (0, 1, 3)], dtype=float)


def crafted(make_round, deltas, malicious, **args) -> np.ndarray:
    updates = make_round(deltas)
    Alie.collude(AlieArgs(**args), updates, malicious, Seeds(0))
    return updates.deltas.double().numpy()


def test_t12_the_z_of_the_paper():
    assert z_max(50, 10) == pytest.approx(0.253347, abs=1e-6)
    assert z_max(25, 5) == pytest.approx(0.253347, abs=1e-6)


@given(n=st.integers(1, 200), data=st.data())
def test_z_is_the_quantile_and_never_negative_nor_infinite(n, data):
    m = data.draw(st.integers(1, n))
    z = z_max(n, m)
    supporters = n // 2 + 1 - m
    if supporters >= 1:
        expected = max(0.0, norm.ppf((n - m - supporters) / (n - m)))
        assert z == pytest.approx(expected, abs=1e-9)
    assert 0 <= z < 4


def test_all_attackers_send_the_mean_minus_z_deviations_of_the_benign(make_round):
    deltas = np.vstack([HONEST, np.full((2, 3), 7)])
    sent = crafted(make_round, deltas, [5, 6], knowledge="omniscient", alie_z=1.5)
    expected = HONEST.mean(0) - 1.5 * HONEST.std(0)
    np.testing.assert_allclose(sent[5:], [expected] * 2, rtol=1e-6)
    np.testing.assert_array_equal(sent[:5], HONEST)


def test_by_default_the_colluders_own_updates_are_all_it_looks_at(make_round):
    deltas = np.vstack([HONEST, 100 * np.ones((10, 3))])
    sent = crafted(make_round, deltas, [0, 1, 2, 3, 4], alie_z=1.0)
    np.testing.assert_allclose(sent[0], HONEST.mean(0) - HONEST.std(0), rtol=1e-6)


def test_the_attackers_z_is_that_of_the_round(make_round):
    n, m = 25, 5
    deltas = np.random.default_rng(0).normal(size=(n, 4))
    sent = crafted(make_round, deltas, list(range(m)))
    own = deltas[:m].astype(np.float32).astype(float)
    np.testing.assert_allclose(sent[0], own.mean(0) - 0.253347 * own.std(0), atol=1e-6)


@pytest.mark.parametrize(("n", "malicious"), [(1, [0]), (2, [1]), (3, [0, 2]), (3, [0, 1, 2])])
@pytest.mark.parametrize("knowledge", ["colluders", "omniscient"])
def test_tiny_rounds_and_majorities_stay_finite(make_round, n, malicious, knowledge):
    sent = crafted(make_round, HONEST[:n], malicious, knowledge=knowledge)
    assert np.isfinite(sent).all()


def test_a_lone_attacker_that_knows_itself_alone_sends_its_honest_update(make_round, caplog):
    np.testing.assert_allclose(crafted(make_round, HONEST, [2])[2], HONEST[2], rtol=1e-6)
    assert "ALIE sends the mean of 1 known updates, with z = 0: no attack" in caplog.text
    caplog.clear()
    crafted(make_round, HONEST, [2], alie_z=1.5)
    assert "of 1 known updates, with z = 1.5: no attack" in caplog.text
    caplog.clear()
    crafted(make_round, HONEST, [1, 2], alie_z=1.5)
    assert not caplog.text


def test_the_server_sees_no_distances_from_before_the_lie(make_round):
    updates = make_round(HONEST)
    Alie.collude(AlieArgs(alie_z=2.0), updates, [0, 1, 2, 3, 4], Seeds(0))
    rows = updates.weights.double()
    torch.testing.assert_close(updates.distances, torch.cdist(rows, rows))
    assert updates.distances.max() == 0
