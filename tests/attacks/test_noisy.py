import numpy as np
import pytest
import torch

from entity.attacks.badnets import BadNets
from entity.attacks.noisy import Noisy, NoisyArgs, hidden_in_noise
from entity.client.attacker import NoArgs


@pytest.mark.parametrize("ratio", [0.0, 0.5, 3.0])
def test_noise_is_orthogonal_as_long_as_asked_and_the_length_stays(ratio):
    delta = torch.randn(200, generator=torch.Generator().manual_seed(1))
    sent = hidden_in_noise(delta, ratio, torch.Generator().manual_seed(2)).numpy()
    d = delta.double().numpy()
    along = sent @ d / np.linalg.norm(d)
    across = np.linalg.norm(sent - along * d / np.linalg.norm(d))
    assert np.linalg.norm(sent) == pytest.approx(np.linalg.norm(d), rel=1e-9)
    assert across / along == pytest.approx(ratio, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("delta", [[0.0, 0.0], [2.0], [3e30, 4e30], [1e-30, 0.0]])
def test_odd_updates_stay_finite_and_as_long_as_they_were(delta):
    delta = torch.tensor(delta)
    sent = hidden_in_noise(delta, 1.0, torch.Generator().manual_seed(0))
    assert float(sent.norm()) == pytest.approx(float(delta.double().norm()), rel=1e-6)


def test_attackers_and_rounds_have_noise_of_their_own(make_bench):
    def push(**at):
        return make_bench(Noisy, NoisyArgs(), **at)

    first, other = push(id=5), push(id=6)
    one, again, two = first.fit().weights, first.fit().weights, first.fit(round=2).weights
    assert torch.equal(one, again)
    assert not torch.equal(one, two)
    assert not torch.equal(one, other.fit().weights)


def test_without_noise_it_is_badnets_to_the_bit_and_buffers_have_none(make_bench):
    plain = make_bench(BadNets, NoArgs()).fit()
    assert torch.equal(make_bench(Noisy, NoisyArgs(noise_ratio=0.0)).fit().weights, plain.weights)
    assert torch.equal(make_bench(Noisy, NoisyArgs()).fit().buffers, plain.buffers)
