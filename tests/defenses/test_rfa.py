import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from entity.defenses.rfa import GeometricMedian, GeometricMedianArgs, weiszfeld


def rfa(updates, resources, **args):
    return GeometricMedian(GeometricMedianArgs(**args), resources).aggregate(updates)


def moved(updates, resources, **args):
    return (rfa(updates, resources, **args).weights - updates.global_weights).double()


def objective(points, z):
    return np.linalg.norm(points - z, axis=1).sum()


def test_one_step_from_the_mean_of_a_hand_made_line(make_updates, make_resources):
    updates = make_updates([0.0, 0.0, 3.0])
    resources = make_resources(updates)
    assert moved(updates, resources, iterations=1).item() == pytest.approx(0.6)
    assert moved(updates, resources).item() == pytest.approx(0, abs=1e-5)


def test_an_equilateral_triangle_has_its_centroid(make_updates, make_resources):
    updates = make_updates([(0, 0), (2, 0), (1, 3**0.5)])
    assert moved(updates, make_resources(updates)).tolist() == pytest.approx([1, 3**-0.5])


def test_three_identical_points_of_five_win(make_updates, make_resources):
    updates = make_updates([(1, 2), (1, 2), (1, 2), (50, -7), (-9, 30)])
    assert moved(updates, make_resources(updates)).tolist() == pytest.approx([1, 2], abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(n=st.integers(3, 9), seed=st.integers(0, 2**32 - 1))
def test_no_optimiser_of_scipy_finds_a_better_point(make_updates, make_resources, n, seed):
    points = np.random.default_rng(seed).normal(size=(n, 3))
    updates = make_updates(torch.from_numpy(points), origin=torch.zeros(3))
    got = moved(updates, make_resources(updates), iterations=500).numpy()
    best = minimize(lambda z: objective(points, z), points.mean(0), method="Nelder-Mead")
    assert objective(points, got) <= best.fun * (1 + 1e-4)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 9), steps=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_weights_give_the_iterates_of_the_vector_form(n, steps, seed):
    rng = np.random.default_rng(seed)
    points, alphas = rng.normal(size=(n, 5)), rng.random(n) + 0.1
    alphas /= alphas.sum()
    z = alphas @ points
    for _ in range(steps):
        pulls = alphas / np.maximum(1e-6, np.linalg.norm(points - z, axis=1))
        z = pulls @ points / pulls.sum()
    rows = torch.from_numpy(points)
    squared = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    weights, distances = weiszfeld(squared, torch.from_numpy(alphas), 1e-6, steps)
    np.testing.assert_allclose(weights @ rows, z, rtol=1e-6, atol=1e-8)
    expected = np.linalg.norm(points - z, axis=1)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-7)


def test_an_outlier_moves_it_by_the_same_however_far_it_is(make_updates, make_resources):
    honest = np.random.default_rng(0).normal(size=(6, 4))
    found = []
    for far in (1e3, 1e5, 1e7, 1e16, 1e19, 1e30, 3e38):
        updates = make_updates(torch.from_numpy(np.vstack([honest, np.full((1, 4), far)])))
        found.append(moved(updates, make_resources(updates)))
    for later in found[1:]:
        assert torch.allclose(found[0], later, atol=1e-2)
        assert float(later.abs().max()) < 3


def test_it_turns_and_shifts_with_the_points(make_updates, make_resources):
    rng = np.random.default_rng(1)
    points = rng.normal(size=(7, 4))
    turn, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    shift = rng.normal(size=4)

    def of(rows):
        updates = make_updates(torch.from_numpy(rows))
        return moved(updates, make_resources(updates)).numpy()

    np.testing.assert_allclose(of(points @ turn + shift), of(points) @ turn + shift, atol=1e-4)


def test_sample_counts_are_the_papers_alphas(make_updates, make_resources):
    updates = make_updates([0.0, 1.0, 10.0], num_samples=[10, 10, 50])
    assert moved(updates, make_resources(updates)).item() == pytest.approx(1, abs=1e-3)
    weighted = moved(updates, make_resources(updates, weighting="samples")).item()
    assert weighted == pytest.approx(10, abs=1e-3)


def test_shares_are_convex_and_scores_are_distances(make_updates, make_resources):
    updates = make_updates([0.0, 0.0, 3.0])
    judged = rfa(updates, make_resources(updates)).verdicts
    assert sum(v.weight for v in judged) == pytest.approx(1)
    assert [v.score for v in judged] == pytest.approx([0, 0, 3], abs=1e-4)
    assert all(v.accepted for v in judged)
