import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.defenses.median import Median, MedianArgs, by_coordinate, middle


def median_of(updates, resources):
    return Median(MedianArgs(), resources).aggregate(updates)


def test_the_lower_median_of_public_codes_is_not_taken(make_updates, make_resources):
    updates = make_updates([(1, 9), (2, -1), (3, 4), (1e9, 0)])
    answer = median_of(updates, make_resources(updates))
    assert (answer.weights - updates.global_weights).tolist() == [2.5, 2.0]


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 12), size=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_it_is_numpys_median(n, size, seed):
    rows = np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)
    got = by_coordinate(torch.from_numpy(rows), middle)
    np.testing.assert_array_equal(got, np.median(rows.astype(np.float64), axis=0).astype("f4"))


def test_it_does_not_matter_where_the_blocks_are_cut(monkeypatch):
    rows = torch.randn(6, 1000, generator=torch.Generator().manual_seed(0))
    whole = by_coordinate(rows, middle)
    monkeypatch.setattr("entity.layout.BLOCK", 7)
    assert torch.equal(by_coordinate(rows, middle), whole)


@settings(max_examples=30, deadline=None)
@given(
    honest=st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=9),
    evil=st.floats(-1e9, 1e9, width=32),
)
def test_fewer_than_half_cannot_leave_the_honest_range(make_updates, make_resources, honest, evil):
    updates = make_updates([*honest, *[evil] * (len(honest) - 1)], origin=[0.0])
    got = float(median_of(updates, make_resources(updates)).weights)
    assert min(honest) <= got <= max(honest)


def test_the_server_rate_steps_towards_the_median(make_updates, make_resources):
    updates = make_updates([(1, 0), (4, 8), (2, 2)])
    answer = median_of(updates, make_resources(updates, server_lr=0.5))
    assert (answer.weights - updates.global_weights).tolist() == [1.0, 1.0]


BN = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))  # buffers: mean, variance, counter
BUFFERS = [(0.0, 1.0, 3.0), (1.0, 5.0, 7.0), (8.0, 2.0, 5.0), (9.0, 9.0, 4.0)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("weighted", [4.5, 3.5, 7.0]),
        ("original", [4.5, 3.5, 4.0]),
        ("keep", [0.0, 1.0, 0.0]),
    ],
)
def test_buffers_follow_their_policy(make_updates, make_resources, policy, expected):
    updates = make_updates(torch.zeros(4, 4), buffers=BUFFERS, model=BN)
    answer = median_of(updates, make_resources(BN, bn_policy=policy))
    assert answer.buffers.tolist() == expected


def test_nobody_is_refused_and_no_share_is_made_up(make_updates, make_resources):
    updates = make_updates([1.0, 2.0, 50.0], ids=["a", "b", "c"])
    judged = median_of(updates, make_resources(updates)).verdicts
    assert [v.client for v in judged] == ["a", "b", "c"]
    assert all(v.accepted and np.isnan(v.weight) for v in judged)
