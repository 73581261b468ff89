import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entity.defenses import Undefended, UndefendedArgs
from entity.layout import ParamSpec
from entity.server.averaging import combine, convex, step
from entity.server.contract import CleanData

MEAN, VARIANCE, COUNTER = slice(0, 3), slice(3, 6), slice(6, 7)


def norm_net():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


@pytest.fixture
def server_of(make_resources):
    def make(of, **changes):
        return Undefended(UndefendedArgs(), make_resources(of, **changes))

    return make


@pytest.fixture
def normed(make_updates):
    """Three clients with BatchNorm; statistics, variances and counters differ."""

    def make(**changes):
        model = norm_net()
        size = ParamSpec.of(model).num_parameters
        rng = np.random.default_rng(0)
        buffers = rng.uniform(0.5, 2, size=(3, 7)).round(3)
        buffers[:, COUNTER] = [[4], [9], [6]]
        fields = {
            "deltas": torch.from_numpy(rng.normal(size=(3, size))).float(),
            "buffers": buffers,
            "global_buffers": [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 2.0],
            "model": model,
        }
        return make_updates(**(fields | changes)), model

    return make


SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


# Combining rows


def test_convex_weighs_rows_in_every_block():
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.normal(size=(4, 70_001))).float()
    shares = torch.tensor([0.1, 0.0, 0.6, 0.3])
    expected = shares.double().numpy() @ rows.double().numpy()
    np.testing.assert_allclose(convex(rows, shares).numpy(), expected, atol=1e-7)


def test_a_row_without_a_share_is_not_even_touched():
    rows = torch.tensor([[1.0, 2.0], [math.inf, math.nan]])
    assert convex(rows, torch.tensor([1.0, 0.0])).tolist() == [1.0, 2.0]


@pytest.mark.parametrize("n", [2, 3, 7, 10, 25])
def test_identical_rows_average_to_themselves_to_the_bit(n):
    row = torch.randn(5000, generator=torch.Generator().manual_seed(n)) * 37
    rows, shares = row.repeat(n, 1), torch.full((n,), 1 / n, dtype=torch.float64)
    assert torch.equal(convex(rows, shares), row)
    origin = torch.randn(5000, generator=torch.Generator().manual_seed(99))
    assert torch.equal(combine(rows, shares, origin), row)


def test_combine_scales_differences_from_the_origin():
    rows, origin = torch.tensor([[3.0, 5.0], [1.0, -1.0]]), torch.tensor([1.0, 1.0])
    factors = torch.tensor([0.5, -2.0])
    assert combine(rows, factors, origin).tolist() == [1 + 0.5 * 2, 1 + 0.5 * 4 - 2 * -2]


def test_a_whole_step_ends_exactly_at_its_end():
    start, end = torch.tensor([1e8, 0.1]), torch.tensor([0.3, 1e-8])
    assert torch.equal(step(start, end, 1.0), end)
    assert step(torch.tensor([2.0]), torch.tensor([6.0]), 0.25).tolist() == [3.0]


# Averaging models


@pytest.mark.parametrize("rate", [1.0, 0.5, 2.0])
def test_the_server_rate_scales_the_mean_update(server_of, make_updates, rate):
    updates = make_updates([(1, 0), (0, 3)], origin=[10, -20])
    state = server_of(updates, server_lr=rate).average(updates, torch.tensor([0.25, 0.75]))
    assert state.weights.tolist() == [10 + rate * 0.25, -20 + rate * 2.25]


def test_without_shares_the_global_model_stays(server_of, normed):
    updates, model = normed()
    for policy in ("weighted", "keep", "original"):
        server = server_of(model, bn_policy=policy)
        for state in (
            server.average(updates, torch.zeros(3)),
            server.average_scaled(updates, torch.zeros(3), torch.ones(3)),
        ):
            assert torch.equal(state.weights, updates.global_weights)
            assert torch.equal(state.buffers, updates.global_buffers)


@pytest.mark.parametrize("rate", [1.0, 0.5, 3.0])
def test_weighted_statistics_are_a_mean_and_counters_the_maximum(server_of, normed, rate):
    updates, model = normed()
    buffers = server_of(model, server_lr=rate).average(updates, SHARES).buffers
    mean = SHARES.numpy() @ updates.buffers.double().numpy()
    start = updates.global_buffers.double().numpy()
    expected = start + rate * (mean - start) if rate <= 1 else mean
    np.testing.assert_allclose(buffers[:6], expected[:6], rtol=1e-6)
    assert buffers[COUNTER].tolist() == [9]


def test_the_counters_maximum_is_over_clients_with_a_share(server_of, normed):
    updates, model = normed()
    buffers = server_of(model).average(updates, torch.tensor([0.5, 0.0, 0.5])).buffers
    assert buffers[COUNTER].tolist() == [6]


def test_kept_statistics_stay_the_global_ones(server_of, normed):
    updates, model = normed()
    state = server_of(model, bn_policy="keep").average(updates, SHARES)
    assert torch.equal(state.buffers, updates.global_buffers)
    assert not torch.equal(state.weights, updates.global_weights)


def test_the_original_averages_everything_and_truncates_counters(server_of, normed):
    updates, model = normed()
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    buffers = server_of(model, bn_policy="original", server_lr=0.5).average(updates, third).buffers
    np.testing.assert_allclose(buffers[:6], updates.buffers.double().mean(0)[:6], rtol=1e-6)
    assert buffers[COUNTER].tolist() == [6]  # 19 / 3 = 6.33
    shares = torch.tensor([0.25, 0.75, 0.0])
    buffers = server_of(model, bn_policy="original").average(updates, shares).buffers
    assert buffers[COUNTER].tolist() == [7]  # 7.75


@pytest.mark.parametrize("samples", [40, 258, 300])
def test_recalibrated_statistics_are_those_of_the_clean_data(server_of, normed, samples):
    updates, model = normed()
    x = torch.randn(samples, 2, generator=torch.Generator().manual_seed(0)) * 2 + 1
    clean = CleanData(x, torch.zeros(samples, dtype=torch.long))
    state = server_of(model, bn_policy="recalibrate", clean=clean).average(updates, SHARES)
    weight, bias = state.weights[:6].view(3, 2).double().numpy(), state.weights[6:9].double()
    batches = x.tensor_split(-(-samples // 256))
    parts = [part.double().numpy() @ weight.T + bias.numpy() for part in batches]
    means = np.mean([part.mean(0) for part in parts], axis=0)
    variances = np.mean([part.var(0, ddof=1) for part in parts], axis=0)
    np.testing.assert_allclose(state.buffers[MEAN], means, rtol=1e-4)
    np.testing.assert_allclose(state.buffers[VARIANCE], variances, rtol=1e-4)
    plain = server_of(model).average(updates, SHARES)
    assert torch.equal(state.weights, plain.weights)


def test_recalibration_draws_nothing_from_the_global_stream(server_of, make_updates):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 3), nn.BatchNorm1d(3))
    updates = make_updates(torch.ones(2, ParamSpec.of(model).num_parameters), model=model)
    clean = CleanData(torch.ones(20, 2), torch.zeros(20, dtype=torch.long))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        server = server_of(model, bn_policy="recalibrate", clean=clean)
        found.append(server.average(updates, torch.tensor([0.5, 0.5])).buffers)
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(*found)


@pytest.mark.parametrize("policy", ["weighted", "original"])
def test_a_clients_negative_variance_does_not_reach_the_model(server_of, normed, caplog, policy):
    updates, model = normed()
    updates.buffers[1, 4] = -50.0
    updates.buffers[1, 1] = -50.0
    server = server_of(model, bn_policy=policy)
    for state in (
        server.average(updates, SHARES),
        server.average_scaled(updates, SHARES, torch.ones(3)),
    ):
        assert state.buffers[4] == 0
        assert state.buffers[1] < -10  # a mean may well be negative
    assert "negative" in caplog.text


# Averaging scaled updates


def test_scaled_buffers_move_by_the_same_factors(server_of, make_updates):
    model = nn.BatchNorm1d(1)
    updates = make_updates(
        [(4, 0), (8, 2)],
        model=model,
        buffers=[(0, 1, 3), (2, 3, 5)],
        global_buffers=[1, 2, 1],
        origin=[1, 1],
    )
    half = torch.tensor([0.5, 0.5])
    state = server_of(model).average_scaled(updates, half, torch.tensor([1.0, 0.5]))
    assert state.weights.tolist() == [1 + 4 / 2 + 8 / 4, 1 + 0 + 2 / 4]
    assert state.buffers.tolist() == [(0 + 1.5) / 2, 1.75, 5]


def test_factors_beyond_one_or_negative_never_extrapolate_a_variance(server_of, make_updates):
    model = nn.BatchNorm1d(1)
    updates = make_updates(
        [(1, 0), (1, 0)],
        model=model,
        buffers=[(0, 0.25, 3), (0, 0.5, 5)],
        global_buffers=[0, 1, 1],
        origin=[0, 0],
    )
    half = torch.tensor([0.5, 0.5])
    state = server_of(model).average_scaled(updates, half, torch.tensor([100.0, -3.0]))
    assert state.weights.tolist() == [48.5, 0]
    assert state.buffers[:2].tolist() == [0, (0.25 + 1) / 2]


def test_model_replacement_leaves_every_variance_at_least_zero(server_of, normed):
    updates, model = normed()
    for rate in (1.0, 100.0):
        server = server_of(model, server_lr=rate)
        state = server.average_scaled(updates, SHARES, torch.full((3,), 100.0))
        assert float(state.buffers[VARIANCE].min()) >= 0


def test_factors_of_one_are_the_plain_average(server_of, normed):
    updates, model = normed()
    for rate in (1.0, 0.5):
        server = server_of(model, server_lr=rate)
        plain = server.average(updates, SHARES)
        scaled = server.average_scaled(updates, SHARES, torch.ones(3))
        torch.testing.assert_close(scaled.weights, plain.weights)
        torch.testing.assert_close(scaled.buffers, plain.buffers)


def test_answers_are_no_views_of_the_rounds_matrix(server_of, normed):
    updates, model = normed()
    for policy in ("weighted", "original"):
        server = server_of(model, bn_policy=policy)
        alone = torch.tensor([0.0, 1.0, 0.0])
        for state in (
            server.average(updates, alone),
            server.average_scaled(updates, alone, torch.ones(3)),
        ):
            kept = state.weights.clone(), state.buffers.clone()
            rows = updates.weights.clone(), updates.buffers.clone()
            updates.weights.zero_()
            updates.buffers.zero_()
            assert torch.equal(state.weights, kept[0])
            assert torch.equal(state.buffers, kept[1])
            updates.weights.copy_(rows[0])
            updates.buffers.copy_(rows[1])


# Shares


def test_shares_are_equal_unless_samples_are_asked_for(server_of, make_updates):
    updates = make_updates([1, 2, 3, 4], num_samples=[1, 1000, 3, 0])
    accepted = torch.tensor([True, False, True, False])
    assert server_of(updates).shares(updates, accepted).tolist() == [0.5, 0, 0.5, 0]
    by_samples = server_of(updates, weighting="samples").shares(updates, accepted)
    assert by_samples.tolist() == [0.25, 0, 0.75, 0]


def test_shares_of_nobody_and_of_empty_clients_are_zero(server_of, make_updates):
    updates = make_updates([1, 2], num_samples=[0, 0])
    server = server_of(updates, weighting="samples")
    assert server.shares(updates, torch.ones(2, dtype=torch.bool)).tolist() == [0, 0]
    assert server.shares(updates, torch.zeros(2, dtype=torch.bool)).tolist() == [0, 0]


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 10**6)), min_size=1, max_size=8))
def test_shares_are_convex(make_updates, make_resources, clients):
    updates = make_updates([0] * len(clients), num_samples=[size for _, size in clients])
    server = Undefended(UndefendedArgs(), make_resources(updates, weighting="samples"))
    accepted = torch.tensor([kept for kept, _ in clients])
    shares = server.shares(updates, accepted)
    assert float(shares.sum()) == pytest.approx(1.0 if accepted.any() else 0.0)
    assert ((shares > 0) == accepted).all()
