"""What every aggregation rule owes, whatever its paper: order, totality, buffers, copies."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from entity.defenses import Undefended, UndefendedArgs
from entity.defenses.bulyan import Bulyan, BulyanArgs
from entity.defenses.fltrust import FLTrust, FLTrustArgs
from entity.defenses.foolsgold import FoolsGold, FoolsGoldArgs
from entity.defenses.krum import Krum, KrumArgs, MultiKrum, MultiKrumArgs
from entity.defenses.median import Median, MedianArgs
from entity.defenses.norm_clipping import NormClipping, NormClippingArgs
from entity.defenses.rfa import GeometricMedian, GeometricMedianArgs
from entity.defenses.rlr import RobustLearningRate, RobustLearningRateArgs
from entity.defenses.trimmed_mean import TrimmedMean, TrimmedMeanArgs
from entity.server.contract import CleanData
from entity.updates import Updates

RULES = {
    "median": (Median, MedianArgs()),
    "trimmed_mean": (TrimmedMean, TrimmedMeanArgs(beta=0.2)),
    "krum": (Krum, KrumArgs()),
    "multikrum": (MultiKrum, MultiKrumArgs()),
    "bulyan": (Bulyan, BulyanArgs()),
    "rfa": (GeometricMedian, GeometricMedianArgs()),
    "norm_clipping": (NormClipping, NormClippingArgs()),
    "rlr": (RobustLearningRate, RobustLearningRateArgs()),
    "foolsgold": (FoolsGold, FoolsGoldArgs()),
    "fltrust": (FLTrust, FLTrustArgs(num_root=20)),
}
MODEL = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
P, COUNTER = 23, 6

every_rule = pytest.mark.parametrize("name", RULES)


@pytest.fixture
def open_server(make_resources):
    def of(name, **changes):
        rng = torch.Generator().manual_seed(0)
        clean = CleanData(torch.randn(20, 2, generator=rng), torch.arange(20) % 2)
        rule, args = RULES[name]
        return rule(args, make_resources(MODEL, clean=clean, **changes))

    return of


@pytest.fixture
def a_round(make_updates):
    def of(n, seed=0, scale=1.0):
        rng = np.random.default_rng(seed)
        buffers = rng.uniform(0.1, 4, size=(n, 7))
        buffers[:, COUNTER] = rng.integers(1, 90, size=n)
        return make_updates(
            scale * rng.normal(size=(n, P)), ids=range(n), model=MODEL, buffers=buffers
        )

    return of


def without_nan(verdicts):
    return {v.client: (v.accepted, np.nan_to_num(v.weight, nan=-1), v.score) for v in verdicts}


@every_rule
@pytest.mark.parametrize("n", [5, 11])
def test_the_order_of_the_clients_does_not_matter(name, n, open_server, a_round):
    updates = a_round(n)
    shuffled = updates.select(np.random.default_rng(1).permutation(n).tolist())
    plain, other = (open_server(name).aggregate(one) for one in (updates, shuffled))
    torch.testing.assert_close(other.weights, plain.weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.buffers, plain.buffers, rtol=1e-5, atol=1e-6)
    expected, got = without_nan(plain.verdicts), without_nan(other.verdicts)
    assert got.keys() == expected.keys()
    for client, (accepted, weight, score) in expected.items():
        assert got[client][0] == accepted
        assert got[client][1] == pytest.approx(weight, abs=1e-6)
        assert got[client][2] == (score and pytest.approx(score, rel=1e-5, abs=1e-6))


@every_rule
def test_it_is_not_fedavg(name, open_server, a_round, make_resources):
    updates = a_round(11)
    outlying = updates.weights.clone()
    outlying[3] = updates.global_weights + 100 * (outlying[3] - updates.global_weights)
    updates = replace(updates, weights=outlying)
    mean = Undefended(UndefendedArgs(), make_resources(MODEL)).aggregate(updates).weights
    got = open_server(name).aggregate(updates).weights
    assert (got - mean).norm() > 0.05 * (mean - updates.global_weights).norm()


def total(name, open_server, updates):
    answer = open_server(name).aggregate(updates)
    assert answer.weights.shape == (P,)
    assert torch.isfinite(answer.weights).all()
    assert torch.isfinite(answer.buffers).all()
    assert (answer.buffers[3:6] >= 0).all()  # running variances
    assert [v.client for v in answer.verdicts] == list(updates.client_ids)
    assert all(v.score is None or np.isfinite(v.score) for v in answer.verdicts)
    assert all(v.accepted == (not v.reason) for v in answer.verdicts)
    assert all(not np.isnan(value) for value in answer.diagnostics.values())
    return answer


@every_rule
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7])
def test_small_rounds_zero_updates_and_identical_ones_have_an_answer(
    name, n, open_server, a_round, make_updates
):
    updates = a_round(n)
    total(name, open_server, updates)
    weights = updates.weights.clone()
    weights[0] = updates.global_weights
    total(name, open_server, replace(updates, weights=weights))
    total(name, open_server, replace(updates, weights=updates.weights[:1].repeat(n, 1)))
    still = total(name, open_server, make_updates(torch.zeros(n, P), model=MODEL))
    torch.testing.assert_close(still.weights, updates.global_weights, rtol=0, atol=1e-7)


@every_rule
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_tiny_and_huge_updates_have_an_answer(name, scale, open_server, a_round):
    total(name, open_server, a_round(9, scale=scale))


EXACT = ("median", "trimmed_mean", "krum", "multikrum", "bulyan", "rfa")


@pytest.mark.parametrize("name", EXACT)
def test_two_identical_clients_are_answered_to_the_bit(name, open_server, a_round):
    updates = a_round(1)
    twins = updates.select([0, 0])
    twins = replace(twins, client_ids=(0, 1))
    answer = open_server(name).aggregate(twins)
    assert torch.equal(answer.weights, updates.weights[0])
    assert torch.equal(answer.buffers, updates.buffers[0])


@pytest.mark.parametrize("name", EXACT)
def test_answers_scale_and_shift_with_the_updates(name, open_server, a_round):
    updates = a_round(9)
    plain = open_server(name).aggregate(updates).weights - updates.global_weights
    shift = torch.linspace(-3, 3, P)
    moved = replace(
        updates,
        weights=updates.weights + shift,
        global_weights=updates.global_weights + shift,
    )
    got = open_server(name).aggregate(moved).weights - moved.global_weights
    torch.testing.assert_close(got, plain, rtol=1e-4, atol=1e-5)
    larger = updates.global_weights + 8 * (updates.weights - updates.global_weights)
    got = open_server(name).aggregate(replace(updates, weights=larger)).weights
    torch.testing.assert_close(got - updates.global_weights, 8 * plain, rtol=1e-4, atol=1e-4)


@every_rule
def test_buffers_never_decide(name, open_server, a_round):
    updates = a_round(9)
    wild = updates.buffers.clone()
    wild[2:5] *= 1e6
    plain = open_server(name).aggregate(updates)
    other = open_server(name).aggregate(replace(updates, buffers=wild))
    assert torch.equal(other.weights, plain.weights)
    assert without_nan(other.verdicts) == without_nan(plain.verdicts)


@every_rule
def test_a_mean_comes_with_the_maximum_of_the_counters_used(name, open_server, a_round):
    updates = a_round(9)
    answer = open_server(name, bn_policy="weighted").aggregate(updates)
    used = [row for row, v in enumerate(answer.verdicts) if v.accepted]
    assert answer.buffers[COUNTER] == updates.buffers[used, COUNTER].max()


@every_rule
def test_variances_stay_positive_at_any_server_rate(name, open_server, a_round):
    updates = a_round(9)
    updates = replace(updates, global_buffers=torch.full((7,), 50.0))
    for rate in (0.3, 1.0, 3.0):
        answer = open_server(name, server_lr=rate).aggregate(updates)
        assert (answer.buffers[3:6] > 0).all()


@every_rule
def test_keeping_buffers_is_up_to_the_config(name, open_server, a_round):
    updates = a_round(9)
    answer = open_server(name, bn_policy="keep").aggregate(updates)
    assert torch.equal(answer.buffers, updates.global_buffers)
    again = open_server(name, bn_policy="recalibrate").aggregate(updates)
    assert not torch.equal(again.buffers, updates.global_buffers)


@every_rule
def test_a_server_rate_of_one_half_goes_half_the_way(name, open_server, a_round):
    updates = a_round(9)
    full, half = (
        open_server(name, server_lr=rate).aggregate(updates).weights - updates.global_weights
        for rate in (1.0, 0.5)
    )
    torch.testing.assert_close(half, full / 2, rtol=1e-4, atol=1e-6)


@every_rule
def test_answers_are_copies_and_inputs_stay_as_they_were(name, open_server, a_round):
    updates = a_round(1)
    before: Updates = replace(updates, weights=updates.weights.clone())
    start, buffers = updates.global_weights.clone(), updates.buffers.clone()
    answer = open_server(name).aggregate(updates)
    assert torch.equal(updates.weights, before.weights)
    assert torch.equal(updates.global_weights, start)
    assert torch.equal(updates.buffers, buffers)
    kept = answer.weights.clone(), answer.buffers.clone()
    updates.weights.fill_(7)
    updates.buffers.fill_(7)
    assert torch.equal(answer.weights, kept[0])
    assert torch.equal(answer.buffers, kept[1])


@every_rule
def test_a_round_can_be_repeated_and_leaves_the_global_stream_alone(name, open_server, a_round):
    before = torch.get_rng_state()
    first, again = (open_server(name).aggregate(a_round(7)) for _ in range(2))
    assert torch.equal(first.weights, again.weights)
    assert torch.equal(torch.get_rng_state(), before)


@every_rule
def test_the_catalogue_has_what_it_shows(name):
    rule, args = RULES[name]
    assert rule.summary
    assert "arXiv" in rule.paper
    assert isinstance(args, rule.hyperparameters)
    assert str(rule.needs(args))


@pytest.mark.parametrize("name", ["median", "trimmed_mean", "krum", "multikrum", "bulyan", "rfa"])
@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_two_negated_updates_of_ten_turn_the_mean_but_not_the_rule(
    name, epsilon, make_updates, make_resources, open_server
):
    honest = 1 + 0.01 * torch.randn(8, P, generator=torch.Generator().manual_seed(0))
    evil = -epsilon * honest.mean(0).expand(2, P)
    updates = make_updates(torch.cat([honest, evil]), model=MODEL)
    moved = open_server(name).aggregate(updates).weights - updates.global_weights
    assert (moved - 1).abs().max() < 0.05
    mean = Undefended(UndefendedArgs(), make_resources(MODEL)).aggregate(updates).weights
    ratio = (mean - updates.global_weights) / honest.mean(0)
    torch.testing.assert_close(ratio, torch.full((P,), (8 - 2 * epsilon) / 10), rtol=1e-4, atol=0)
