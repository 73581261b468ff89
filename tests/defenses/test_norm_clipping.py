import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.defenses.norm_clipping import NormClipping, NormClippingArgs, clip_factors

BN = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))  # buffers: mean, variance, counter


def clip(updates, resources, **args):
    return NormClipping(NormClippingArgs(**args), resources).aggregate(updates)


def moved(updates, resources, **args):
    return (clip(updates, resources, **args).weights - updates.global_weights).tolist()


def test_three_four_is_clipped_to_length_one(make_updates, make_resources):
    updates = make_updates([(3, 4)])
    assert moved(updates, make_resources(updates), c=1.0) == pytest.approx([0.6, 0.8])
    assert moved(updates, make_resources(updates), c=10.0) == [3, 4]


@settings(max_examples=25, deadline=None)
@given(n=st.integers(1, 8), c=st.floats(0.1, 10), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_mean_of_clipped_updates(make_updates, make_resources, n, c, seed):
    rows = np.random.default_rng(seed).normal(scale=3, size=(n, 4)).astype("f4")
    updates = make_updates(rows, origin=torch.zeros(4))
    norms = np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True)
    expected = (rows * np.minimum(1, c / norms)).mean(0)
    got = np.array(moved(updates, make_resources(updates), c=c))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert np.linalg.norm(got) <= c * (1 + 1e-5)


def test_the_adaptive_bound_is_the_median_which_one_attacker_cannot_raise(
    make_updates, make_resources
):
    updates = make_updates([(1, 0), (0, 2), (3, 0), (0, 1e6)])
    answer = clip(updates, make_resources(updates))
    assert answer.diagnostics == {"clip": 2.5, "clipped": 2.0}
    assert (answer.weights - updates.global_weights).tolist() == pytest.approx([3.5 / 4, 4.5 / 4])
    assert [v.score for v in answer.verdicts] == pytest.approx([1, 2, 3, 1e6])
    assert [v.weight for v in answer.verdicts] == pytest.approx([0.25, 0.25, 2.5 / 12, 2.5 / 4e6])


def test_zero_updates_are_left_alone():
    assert clip_factors(torch.zeros(3), 0.0).tolist() == [1, 1, 1]
    assert clip_factors(torch.tensor([0.0, 2.0]), 0.0).tolist() == [1, 0]


def test_weak_dp_adds_noise_of_the_asked_size(make_updates, make_resources):
    updates = make_updates(torch.zeros(2, 100_000))
    resources = make_resources(updates)
    plain = clip(updates, resources, c=1.0).weights
    noise = clip(updates, resources, c=1.0, sigma=0.025).weights - plain
    assert float(noise.std()) == pytest.approx(0.025, rel=0.02)
    assert abs(float(noise.mean())) < 5 * 0.025 / 100_000**0.5


def test_noise_is_of_the_round_and_leaves_the_global_stream_alone(make_updates, make_resources):
    before = torch.get_rng_state()
    first, again, later = (
        make_updates(torch.zeros(1, 9), round=1),
        make_updates(torch.zeros(1, 9), round=1),
        make_updates(torch.zeros(1, 9), round=2),
    )
    resources = make_resources(first)
    a, b, c = (clip(one, resources, sigma=1.0).weights for one in (first, again, later))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_buffers_are_clipped_with_their_client_and_never_noised(make_updates, make_resources):
    updates = make_updates(
        [(1, 0, 0, 0), (2, 0, 0, 0)],
        model=BN,
        buffers=[(0, 1, 3), (0, 3, 7)],
        global_buffers=(0, 2, 0),
    )
    answer = clip(updates, make_resources(BN, bn_policy="weighted"), c=1.0, sigma=10.0)
    assert answer.buffers.tolist() == [0, 1.75, 7]


def test_a_fixed_bound_is_one_that_clients_can_keep_themselves():
    assert NormClipping.needs(NormClippingArgs(c="median")).individual_updates
    assert not NormClipping.needs(NormClippingArgs(c=3.0)).individual_updates


def test_each_clients_whole_update_is_clipped_and_not_their_sum_by_tensors(
    make_updates, make_resources
):
    """A public code clips every tensor of the summed update on its own."""
    model = nn.Linear(1, 1)  # two tensors of one number
    updates = make_updates([(3, 4), (3, -4)], model=model)
    assert moved(updates, make_resources(model), c=1.0) == pytest.approx([0.6, 0])
