from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.server.foreseen import Foreseen, hessian_products


def bfgs(steps: np.ndarray) -> np.ndarray:
    """The estimate as a matrix, by the updates of BFGS one after the other."""
    pairs = [(s, after - s) for s, after in pairwise(steps)]
    s, y = pairs[-1]
    found = (y @ s) / (s @ s) * np.eye(len(s))
    for s, y in pairs:
        pulled = found @ s
        found = found - np.outer(pulled, pulled) / (s @ pulled) + np.outer(y, y) / (y @ s)
    return found


def times(steps: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """What the function makes of vectors (R, P), for a gradient that changes as the steps do."""
    s, y, v = (torch.from_numpy(one) for one in (steps[:-1], np.diff(steps, axis=0), vectors))
    found = hessian_products(s @ s.T, s @ y.T, s @ v.T, y @ v.T)
    return (found.sigma * v + found.of_steps.T @ s + found.of_changes.T @ y).numpy()


def descent(hessian: np.ndarray, rate: float, rounds: int, seed: int = 0) -> np.ndarray:
    """Models (rounds, P) of gradient descent on a quadratic function."""
    w = np.random.default_rng(seed).normal(size=len(hessian))
    models = [w]
    for _ in range(rounds - 1):
        models.append(models[-1] - rate * hessian @ models[-1])
    return np.array(models)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 4))
def test_products_are_those_of_the_matrix_that_bfgs_builds_up(seed, m):
    """Steps of a descent, where y's is negative definite, as that of updates is."""
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(6, 6))
    models = descent(root @ root.T / 6 + np.eye(6), 0.2, m + 2, seed)
    steps, vectors = np.diff(models, axis=0), rng.normal(size=(2, 6))
    np.testing.assert_allclose(times(steps, vectors), vectors @ bfgs(steps).T, rtol=1e-5, atol=1e-8)


def test_the_estimate_maps_the_last_step_to_how_the_next_one_differs():
    """The secant condition, which every quasi-Newton matrix fulfils for the last pair."""
    steps = np.random.default_rng(1).normal(size=(4, 9))
    np.testing.assert_allclose(times(steps, steps[2:3])[0], steps[3] - steps[2], rtol=1e-8)


def test_a_model_that_stood_still_makes_no_pair(make_updates):
    """As if that round had not been."""
    rng = np.random.default_rng(2)
    ways, moves = rng.normal(size=(5, 4)), rng.normal(size=(5, 3, 4))

    def play(numbers) -> torch.Tensor | None:
        foreseen = Foreseen(9)
        for number, which in enumerate(numbers, 1):
            updates = make_updates(moves[which], origin=ways[which], round=number)
            found = foreseen.distances(updates)
            foreseen.book(updates, torch.from_numpy(moves[which].mean(0)))
        return found

    torch.testing.assert_close(play([0, 1, 1, 2, 3]), play([0, 1, 2, 3]))
    assert play([0, 0, 0]) is None


def test_repeated_steps_are_no_failure():
    """Regression: the authors' code inverts a singular matrix."""
    steps = np.repeat(np.random.default_rng(3).normal(size=(1, 5)), 5, axis=0)
    assert np.isfinite(times(steps, np.ones((1, 5)))).all()


@pytest.mark.parametrize("rate", [1.0, 0.25])
def test_updates_of_one_quadratic_loss_are_foreseen_but_not_a_liars(rate, make_updates):
    """Client i's update is -a (w - c_i), so that its change is -a times the model's."""
    rng = np.random.default_rng(4)
    centres = rng.normal(size=(6, 8))
    foreseen, w = Foreseen(5), np.zeros(8)
    for number in range(1, 7):
        rows = -0.3 * (w - centres)
        if number == 6:
            rows[2] = -rows[2]
        updates = make_updates(rows, origin=w, round=number)
        found = foreseen.distances(updates)
        assert (found is None) == (number < 3)
        foreseen.book(updates, torch.from_numpy(rows.mean(0)))
        w = (w + rate * rows.mean(0)).astype(np.float32)
    assert found[[0, 1, 3, 4, 5]].max() < 1e-5
    assert found[2] == pytest.approx(2 * np.linalg.norm(rows[2]), rel=1e-4)


def test_a_client_that_was_away_is_foreseen_over_all_that_moved_meanwhile(make_updates):
    """Also where its last model is older than the window."""
    centres = np.random.default_rng(5).normal(size=(3, 4))
    foreseen, w = Foreseen(2), np.zeros(4)
    for number in range(1, 8):
        here = [0, 1] if 1 < number < 7 else [0, 1, 2]
        rows = -0.3 * (w - centres)
        updates = make_updates(rows[here], ids=here, origin=w, round=number)
        found = foreseen.distances(updates)
        foreseen.book(updates, torch.from_numpy(rows[:2].mean(0)))
        w = (w + rows[:2].mean(0)).astype(np.float32)
    assert found.max() < 1e-5
    assert [*foreseen.models] == [5, 6, 7]


def test_who_comes_for_the_first_time_is_not_foreseen(make_updates):
    foreseen = Foreseen(3)
    for number, ids in enumerate([[4, 5], [4, 5], [4, 5], [5, 6]], 1):
        rows = [[1.0 / number, 2.0], [3.0, 4.0 / number]]
        updates = make_updates(rows, ids=ids, origin=[0.1 * number**2, 1.0], round=number)
        found = foreseen.distances(updates)
        foreseen.book(updates, updates.deltas.mean(0))
    assert found.isnan().tolist() == [False, True]
    assert foreseen.distances(make_updates([[1.0, 2.0]], ids=[9], round=5)) is None


def test_only_what_is_referred_to_is_kept(make_updates):
    foreseen = Foreseen(2)
    for number in range(1, 9):
        ids = [1, 2, 3] if number == 2 else [1, 2]
        updates = make_updates([[1.0]] * len(ids), ids=ids, round=number)
        foreseen.book(updates, updates.deltas.mean(0))
    assert [*foreseen.models] == [2, 6, 7, 8]
    assert [*foreseen.aggregates] == [6, 7, 8]
    assert {client: number for client, (number, _) in foreseen.last.items()} == {1: 8, 2: 8, 3: 2}


def test_the_matrix_of_a_round_may_be_used_again(make_updates):
    foreseen = Foreseen(2)
    updates = make_updates([[1.0], [2.0]], origin=[3.0])
    foreseen.book(updates, updates.deltas.mean(0))
    updates.weights.fill_(99)
    assert [model.item() for _, model in foreseen.last.values()] == [4, 5]


def test_models_longer_than_a_block_give_the_same(monkeypatch, make_updates):
    rng = np.random.default_rng(6)
    rounds = [
        make_updates(rng.normal(size=(3, 7)), origin=rng.normal(size=7), round=i)
        for i in range(1, 6)
    ]

    def last() -> torch.Tensor:
        foreseen = Foreseen(3)
        for updates in rounds:
            found = foreseen.distances(updates)
            foreseen.book(updates, updates.deltas.mean(0))
        return found

    whole = last()
    monkeypatch.setattr("entity.layout.BLOCK", 2)
    torch.testing.assert_close(last(), whole)
