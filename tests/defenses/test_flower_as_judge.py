"""Flower's rules, where they follow the papers, against ours: selections and aggregates alike."""

import os

import numpy as np
import pytest
import torch

from entity.defenses import DEFENSES
from entity.defenses.krum import Krum, KrumArgs, MultiKrum, MultiKrumArgs

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
judge = pytest.importorskip("flwr.server.strategy.aggregate")


def a_round(seed: int, n: int, size: int = 40) -> np.ndarray:
    """Return the deltas (n, size) of n clients, three of them far off."""
    rng = np.random.default_rng(seed)
    deltas = rng.normal(size=(n, size))
    deltas[rng.choice(n, 3, replace=False)] += rng.normal(0, 4, size=(3, size))
    return deltas.astype(np.float32)


def as_flower_has_it(updates) -> list[tuple[list[np.ndarray], int]]:
    return [([row.double().numpy()], 1) for row in updates.weights]


@pytest.mark.parametrize("seed", range(10))
def test_krum_picks_the_client_that_flower_picks(seed, make_updates, make_resources):
    updates = make_updates(a_round(seed, 11))
    expected = judge.aggregate_krum(as_flower_has_it(updates), 3, 0)
    answer = Krum(KrumArgs(f=3), make_resources(updates)).aggregate(updates)
    np.testing.assert_array_equal(answer.weights.numpy(), expected[0].astype(np.float32))


@pytest.mark.parametrize("seed", range(10))
def test_multi_krum_averages_the_clients_that_flower_averages(seed, make_updates, make_resources):
    updates = make_updates(a_round(seed, 12))
    expected = judge.aggregate_krum(as_flower_has_it(updates), 3, 9)
    answer = MultiKrum(MultiKrumArgs(f=3, multi_k=9), make_resources(updates)).aggregate(updates)
    np.testing.assert_allclose(answer.weights.numpy(), expected[0], atol=1e-6)


@pytest.mark.parametrize("seed", range(10))
def test_bulyan_is_flowers(seed, make_updates, make_resources):
    updates = make_updates(a_round(seed, 15))
    expected = judge.aggregate_bulyan(as_flower_has_it(updates), 3, judge.aggregate_krum, to_keep=0)
    entry = DEFENSES["bulyan"]
    answer = entry(entry.hyperparameters(f=3), make_resources(updates)).aggregate(updates)
    np.testing.assert_allclose(answer.weights.numpy(), expected[0], atol=1e-5)


@pytest.mark.parametrize(("n", "f"), [(15, 3), (25, 5), (50, 11)])
@pytest.mark.parametrize("seed", range(3))
def test_bulyan_is_flowers_where_colluders_send_one_vector(
    n, f, seed, make_updates, make_resources
):
    """Regression: the values that colluders repeat counted several times."""
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(n - f, 40)).astype(np.float32)
    lie = largest_gamma_lie(honest)
    updates = make_updates(np.vstack([np.tile(lie, (f, 1)), honest]))
    entry = DEFENSES["bulyan"]
    answer = entry(entry.hyperparameters(f=f), make_resources(updates)).aggregate(updates)
    expected = judge.aggregate_bulyan(as_flower_has_it(updates), f, judge.aggregate_krum, to_keep=0)
    picked = [row for row, verdict in enumerate(answer.verdicts) if verdict.accepted]
    values = updates.weights[picked].double().numpy()
    # Where values below and above the median tie, Flower takes whichever come first.
    away = np.abs(values - np.median(values, axis=0))
    last = away == np.sort(away, axis=0)[n - 4 * f - 1]
    tied = [np.ptp(values[rows, column]) > 0 for column, rows in enumerate(last.T)]
    decided = ~np.array(tied)
    assert decided.mean() > 0.9
    np.testing.assert_allclose(answer.weights[decided], expected[0][decided], atol=1e-5)


def largest_gamma_lie(honest: np.ndarray) -> np.ndarray:
    """Return Min-Max's update: as far along -std as its farthest honest update is apart."""
    centre, way = honest.mean(0), honest.std(0)
    span = max(np.linalg.norm(honest - row, axis=1).max() for row in honest)
    gammas = np.linspace(0, 20, 2001)
    fits = [g for g in gammas if np.linalg.norm(honest - (centre - g * way), axis=1).max() <= span]
    return (centre - max(fits) * way).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["trimmed_mean", "median"])
def test_coordinate_rules_are_flowers(name, seed, make_updates, make_resources):
    for n in (10, 11):
        updates = make_updates(a_round(seed, n))
        results = as_flower_has_it(updates)
        entry = DEFENSES[name]
        if name == "median":
            expected, args = judge.aggregate_median(results), entry.hyperparameters()
        else:
            expected = judge.aggregate_trimmed_avg(results, 0.2)
            args = entry.hyperparameters(beta=0.2)
        answer = entry(args, make_resources(updates)).aggregate(updates)
        np.testing.assert_allclose(answer.weights.numpy(), expected[0], atol=1e-6)
        assert torch.isfinite(answer.weights).all()
