import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.rlr import RobustLearningRate, RobustLearningRateArgs, sign_votes
from entity.server.contract import Setting

HAND_MADE = [(1, 1), (1, -1), (1, 1), (-1, -1), (1, 1)]


def rlr(updates, resources, **args):
    return RobustLearningRate(RobustLearningRateArgs(**args), resources).aggregate(updates)


def moved(updates, resources, **args):
    return (rlr(updates, resources, **args).weights - updates.global_weights).tolist()


def test_the_disputed_coordinate_is_reversed(make_updates, make_resources):
    updates = make_updates(HAND_MADE)
    resources = make_resources(updates)
    assert moved(updates, resources, theta=3) == pytest.approx([0.6, -0.2])
    assert moved(updates, resources, theta=1) == pytest.approx([0.6, 0.2])
    assert moved(updates, resources, theta=5) == pytest.approx([-0.6, -0.2])
    assert rlr(updates, resources, theta=3).diagnostics == {"theta": 3, "reversed": 0.5}


def test_the_server_rate_scales_the_reversed_step_too(make_updates, make_resources):
    updates = make_updates(HAND_MADE)
    got = moved(updates, make_resources(updates, server_lr=0.5), theta=3)
    assert got == pytest.approx([0.3, -0.1])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 9), theta=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_paper_in_numpy(make_updates, make_resources, n, theta, seed):
    rows = np.random.default_rng(seed).integers(-2, 3, size=(n, 12)).astype("f8")
    updates = make_updates(rows)
    rate = np.where(np.abs(np.sign(rows).sum(0)) >= theta, 1.0, -1.0)
    got = moved(updates, make_resources(updates), theta=theta)
    np.testing.assert_allclose(got, rate * rows.mean(0), rtol=1e-5, atol=1e-6)


def test_a_coordinate_that_nobody_moves_stays(make_updates, make_resources):
    updates = make_updates([(0, 1), (0, 1)])
    assert moved(updates, make_resources(updates), theta=2) == [0, 1]
    assert sign_votes(updates.weights, updates.global_weights).tolist() == [0, 2]


def test_votes_are_signs_of_updates_not_of_models(make_updates, make_resources):
    updates = make_updates([(-1, 1), (-1, 1), (-1, 1)], origin=[100.0, -100.0])
    assert moved(updates, make_resources(updates), theta=3) == [-1, 1]


def test_the_default_threshold_is_between_the_bounds_of_every_minority(
    make_updates, make_resources
):
    for n in (1, 2, 3, 10, 25):
        updates = make_updates([[1.0]] * n)
        theta = rlr(updates, make_resources(updates)).diagnostics["theta"]
        assert all(k + 1 <= theta <= n - k for k in range((n + 1) // 2)), (n, theta)


def test_four_of_ten_alone_do_not_keep_their_direction(make_updates, make_resources):
    """0.4 n, of a setting with one malicious client in ten, would have let them."""
    updates = make_updates([[1.0]] * 4 + [[0.1]] * 3 + [[-0.1]] * 3)
    assert moved(updates, make_resources(updates))[0] < 0
    assert moved(updates, make_resources(updates), theta=4)[0] > 0


def test_half_needs_a_majority_and_a_given_threshold_a_bound():
    needs = RobustLearningRate.needs
    assert needs(RobustLearningRateArgs()).honest_majority
    assert not needs(RobustLearningRateArgs()).malicious_bound
    assert needs(RobustLearningRateArgs(theta=4)).malicious_bound


def test_buffers_are_averaged_and_never_reversed(make_updates, make_resources):
    model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))
    updates = make_updates(
        torch.tensor([[1.0], [-1.0]]).repeat(1, 4),
        model=model,
        buffers=[(0, 4, 2), (0, 8, 5)],
        global_buffers=(0, 1, 0),
    )
    answer = rlr(updates, make_resources(model, bn_policy="weighted"), theta=2)
    assert answer.buffers.tolist() == [0, 6, 5]


def test_a_threshold_beyond_the_round_is_refused():
    with pytest.raises(ConfigError, match="lower it to at most 10"):
        RobustLearningRate.check(RobustLearningRateArgs(theta=11), Setting(10, 0, (1, 4)))
