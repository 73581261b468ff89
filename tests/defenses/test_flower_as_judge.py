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
