from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from torch import nn

from entity.server.certificate import Threat, certified_radius, smoothed_votes, vote_bounds

ONE = Threat(share=0.05, scale=10, steps=30, lr=0.001, poisoned=0.05)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear() -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(2)))
    return model


def test_without_noise_all_copies_vote_as_the_model():
    model, x = linear(), torch.randn(9, 1, 4, 4, generator=generator(3))
    found = smoothed_votes(model, x, 3, sigma=0.0, copies=5, rng=generator())
    expected = 5 * nn.functional.one_hot(model(x).argmax(1), 3)
    assert torch.equal(found, expected)


def test_noise_splits_the_votes_and_leaves_the_model_as_it_was():
    model, x = linear(), torch.randn(9, 1, 4, 4, generator=generator(3))
    before = [parameter.clone() for parameter in model.parameters()]
    found = smoothed_votes(model, x, 3, sigma=1.0, copies=40, rng=generator())
    assert (found.sum(1) == 40).all()
    assert (found.amax(1) < 40).any()
    assert all(map(torch.equal, before, model.parameters()))
    again = smoothed_votes(model, x, 3, sigma=1.0, copies=40, rng=generator())
    assert torch.equal(found, again)


@pytest.mark.parametrize("counts", [[90, 8, 2], [1000, 0, 0], [40, 30, 30]])
def test_the_bounds_are_clopper_pearsons_for_all_classes_at_once(counts):
    lower, upper = vote_bounds(torch.tensor([counts]), alpha=0.01)
    copies, level = sum(counts), 1 - 2 * 0.01 / 6

    def interval(count: int):
        return binomtest(count, copies).proportion_ci(level, "exact")

    assert lower.item() == pytest.approx(interval(counts[0]).low)
    assert upper.item() == pytest.approx(min(interval(counts[1]).high, 1 - lower.item()))


def test_the_radius_of_the_published_formula():
    later = [(3.1, 0.5), (3.2, 0.01)]
    found = certified_radius(0.8, 0.1, sigma=0.02, lipschitz=3.0, attackers=[ONE] * 2, later=later)
    gap = (0.8**0.5 - 0.1**0.5) ** 2
    spread = 2 * (0.05 * 10 * 30 * 0.001 * 0.05) ** 2
    contraction = (2 * norm.cdf(6.2) - 1) * 1
    expected = -log(1 - gap) * 0.02**2 / (2 * 2 * 9 * spread * contraction)
    assert found**2 == pytest.approx(expected)


def test_no_majority_is_no_certificate_and_no_attacker_no_limit():
    facts = {"sigma": 0.01, "lipschitz": 1.0}
    assert certified_radius(0.4, 0.4, attackers=[ONE], **facts) == 0
    assert certified_radius(0.3, 0.6, attackers=[ONE], **facts) == 0
    assert certified_radius(0.9, 0.1, attackers=[], **facts) == float("inf")
    assert certified_radius(1.0, 0.0, attackers=[ONE], **facts) == float("inf")


@given(p=st.floats(0.55, 0.99), more=st.floats(1.01, 3))
def test_the_radius_grows_with_the_margin_and_shrinks_with_the_attack(p, more):
    def radius(p_a: float, attacker: Threat, sigma: float = 0.01) -> float:
        return certified_radius(p_a, 1 - p_a, sigma=sigma, lipschitz=2, attackers=[attacker])

    base = radius(p, ONE)
    assert radius(min(0.999, p * 1.005), ONE) > base
    assert radius(p, ONE._replace(scale=more * ONE.scale)) == pytest.approx(base / more)
    assert radius(p, ONE, sigma=more * 0.01) == pytest.approx(base * more)
