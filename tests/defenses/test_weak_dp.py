import numpy as np
import pytest
import torch

from entity.config.schema import ConfigError, load
from entity.defenses.norm_clipping import NormClipping, NormClippingArgs
from entity.defenses.weak_dp import WeakDp, WeakDpArgs
from entity.server import admit
from entity.server.streaming import can_stream


def test_it_is_the_mean_of_clipped_updates_with_noise_of_that_size(make_updates, make_resources):
    rows = np.random.default_rng(0).normal(size=(3, 100_000)).astype("f4")
    updates = make_updates(rows, origin=torch.zeros(100_000))
    answer = WeakDp(WeakDpArgs(2.0, 0.025), make_resources(updates)).aggregate(updates)
    clipped = rows * np.minimum(1, 2 / np.linalg.norm(rows.astype("f8"), axis=1, keepdims=True))
    noise = answer.weights.numpy() - clipped.mean(0)
    assert noise.std() == pytest.approx(0.025, rel=0.02)
    assert abs(noise.mean()) < 5 * 0.025 / 100_000**0.5
    assert all(verdict.accepted for verdict in answer.verdicts)


@pytest.mark.parametrize("bound", ["median", 1.5])
def test_it_is_norm_clipping_with_its_noise_to_the_bit(bound, make_updates, make_resources):
    updates = make_updates([(3, 4), (1, 0), (0, 0)], round=7)
    resources = make_resources(updates, server_lr=0.5)
    args = WeakDpArgs(bound)
    mine = WeakDp(args, resources).aggregate(updates)
    other = NormClipping(NormClippingArgs(bound, args.sigma), resources).aggregate(updates)
    assert torch.equal(mine.weights, other.weights)
    assert mine.verdicts == other.verdicts
    assert WeakDp.needs(args) == NormClipping.needs(NormClippingArgs(bound))
    assert can_stream(WeakDp, args) == (bound != "median")
    scale, its = WeakDp(args, resources).scale, bound
    assert scale is None if its == "median" else scale(3.0) == 0.5


def test_of_one_client_of_huge_length_little_is_left(make_updates, make_resources):
    updates = make_updates([(1e30, 0), (1, 0), (0, 1)], origin=[0.0, 0.0])
    found = admit(WeakDp(WeakDpArgs(), make_resources(updates)), updates).weights
    assert found.numpy() == pytest.approx([2 / 3, 1 / 3], abs=0.02)


def test_without_noise_it_is_not_weak_dp():
    with pytest.raises(ConfigError, match="sigma = 0: allowed is a number above 0"):
        load(WeakDpArgs, {"sigma": 0})
