import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.defenses.krum import Krum, KrumArgs, MultiKrum, MultiKrumArgs, krum_scores, ranked

CLOUD = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.5), (10.0, 10.0)]


def squared(points):
    rows = torch.as_tensor(points, dtype=torch.float64)
    rows = rows[:, None] if rows.dim() == 1 else rows
    return ((rows[:, None] - rows[None]) ** 2).sum(-1)


def krum(updates, resources, **args):
    return Krum(KrumArgs(**args), resources).aggregate(updates)


def multikrum(updates, resources, **args):
    return MultiKrum(MultiKrumArgs(**args), resources).aggregate(updates)


def accepted(answer):
    return [v.client for v in answer.verdicts if v.accepted]


def test_krum_picks_the_centre_of_a_hand_made_cloud(make_updates, make_resources):
    assert krum_scores(squared(CLOUD), f=1).tolist() == [2.0, 3.0, 2.25, 3.5, 334.25]
    updates = make_updates(CLOUD)
    answer = krum(updates, make_resources(updates), f=1)
    assert torch.equal(answer.weights, updates.weights[0])
    assert [v.score for v in answer.verdicts] == pytest.approx([2.0, 3.0, 2.25, 3.5, 334.25])
    assert [v.weight for v in answer.verdicts] == [1, 0, 0, 0, 0]
    assert answer.verdicts[4].reason


def test_the_n_minus_f_minus_1_neighbours_of_public_codes_would_pick_another():
    line = squared([0.0, 1.0, 2.0, 4.0, 50.0])
    assert int(krum_scores(line, f=1).argmin()) == 1
    assert int(krum_scores(line, f=0).argmin()) == 2  # one neighbour more
    assert int(krum_scores(squared(CLOUD), f=0).argmin()) == 2


def test_unsquared_distances_of_public_codes_would_pick_another():
    points = [(7, 5), (1, 5), (5, 5), (1, 4), (3, 0), (7, 5), (6, 0)]
    scores = krum_scores(squared(points), f=2)
    assert scores.tolist() == [30, 46, 24, 38, 58, 30, 61]
    assert int(scores.argmin()) == 2
    assert int(krum_scores(squared(points).sqrt(), f=2).argmin()) == 0


def test_a_neighbour_that_is_identical_is_counted_and_only_oneself_is_not():
    # With a self distance of 1e-9 by rounding, argsort[1:] would drop the twin instead.
    distances = squared([0.0, 0.0, 3.0, 5.0])
    distances.fill_diagonal_(1e-9)
    assert krum_scores(distances, f=0).tolist() == [9.0, 9.0, 13.0, 29.0]


def test_multikrum_averages_the_m_lowest(make_updates, make_resources):
    updates = make_updates(CLOUD)
    for answer in (
        multikrum(updates, make_resources(updates), f=1),
        multikrum(updates, make_resources(updates), f=1, multi_k=4),
    ):
        assert (answer.weights - updates.global_weights).tolist() == [0.5, 0.625]
        assert [v.weight for v in answer.verdicts] == [0.25] * 4 + [0.0]


def test_the_configured_multi_k_is_not_ignored_as_in_the_original(make_updates, make_resources):
    updates = make_updates(CLOUD)
    assert accepted(multikrum(updates, make_resources(updates), f=1, multi_k=2)) == [0, 2]


def test_the_estimate_is_not_half_of_the_round_as_in_the_original(make_updates, make_resources):
    updates = make_updates([[float(i)] for i in range(25)])
    answer = multikrum(updates, make_resources(updates))
    assert answer.diagnostics["f"] == 11
    assert len(accepted(answer)) == 14


def test_reported_counts_do_not_weigh_the_mean_unless_asked_for(make_updates, make_resources):
    updates = make_updates(CLOUD, num_samples=[1000, 1, 1, 1, 1])
    plain = multikrum(updates, make_resources(updates), f=1)
    assert (plain.weights - updates.global_weights).tolist() == [0.5, 0.625]
    asked = multikrum(updates, make_resources(updates, weighting="samples"), f=1)
    assert (asked.weights - updates.global_weights).abs().max() < 0.01


def test_ties_go_to_the_lowest_client_id(make_updates, make_resources):
    same = [(1.0, 2.0)] * 5
    updates = make_updates(same, ids=[9, 10, 4, 6, 8])
    assert accepted(krum(updates, make_resources(updates), f=1)) == [4]
    assert ranked(torch.tensor([3.0, 1.0 + 1e-14, 1.0]), ["9", "a", "b"]) == [1, 2, 0]


def test_near_identical_updates_of_any_size_tie(make_updates, make_resources):
    base = 1e3 * torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    updates = make_updates(base.repeat(7, 1), ids=[3, 1, 2, 7, 5, 6, 4], origin=torch.zeros(5000))
    answer = krum(updates, make_resources(updates))
    assert accepted(answer) == [1]
    assert all(v.score == 0 for v in answer.verdicts)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(3, 15), size=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_scores_are_those_of_a_plain_loop(n, size, seed):
    rng = np.random.default_rng(seed)
    points, f = rng.normal(size=(n, size)), int(rng.integers(0, n))
    k = min(max(1, n - f - 2), n - 1)
    expected = [
        sum(sorted(((points[i] - points[j]) ** 2).sum() for j in range(n) if j != i)[:k])
        for i in range(n)
    ]
    np.testing.assert_allclose(krum_scores(squared(points), f), expected)


@settings(max_examples=20, deadline=None)
@given(f=st.integers(1, 5), seed=st.integers(0, 2**32 - 1), far=st.floats(100, 1e6))
def test_f_far_attackers_are_never_selected(make_updates, make_resources, f, seed, far):
    rng = np.random.default_rng(seed)
    honest = rng.normal(size=(f + 3, 6))
    evil = far * rng.choice([-1.0, 1.0], size=(f, 6))
    updates = make_updates(torch.from_numpy(np.vstack([evil, honest])))
    assert min(accepted(krum(updates, make_resources(updates), f=f))) >= f
    assert min(accepted(multikrum(updates, make_resources(updates), f=f))) >= f


def test_more_colluding_twins_than_the_bound_break_it(make_updates, make_resources):
    honest = np.random.default_rng(0).normal(size=(5, 4))
    updates = make_updates(torch.from_numpy(np.vstack([honest, np.full((6, 4), 9.0)])))
    assert accepted(krum(updates, make_resources(updates))) == [5]


def test_batchnorm_buffers_and_counters_enter_no_distance(make_updates, make_resources):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    deltas = [[value, 0, 0, 0] for value in (0.0, 1.0, 2.0, 4.0, 50.0)]
    buffers = [[1e6 * i, 1e6 * i + 1, 1e5 * i] for i in range(5)]
    updates = make_updates(deltas, model=model, buffers=buffers)
    answer = krum(updates, make_resources(model, bn_policy="weighted"), f=1)
    assert accepted(answer) == [1]
    assert answer.buffers.tolist() == buffers[1]
