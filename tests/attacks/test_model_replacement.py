import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from entity.attacks.badnets import BadNets
from entity.attacks.model_replacement import ModelReplacement, ReplacementArgs, scaled
from entity.client.attacker import NoArgs
from entity.layout import ModelState
from entity.seeding import Seeds


@given(n=st.integers(1, 50), rate=st.sampled_from([0.1, 0.5, 1.0]))
def test_t15_the_mean_becomes_the_attackers_model_when_the_others_stand_still(make_round, n, rate):
    x = torch.tensor([0.3, -1.7, 12.5])
    deltas = torch.zeros(n, 3)
    deltas[n // 2] = x
    updates = make_round(deltas, origin=[0.0, 0.0, 0.0])
    args = ReplacementArgs(replace_server_lr=rate)
    ModelReplacement.collude(args, updates, [n // 2], Seeds(0))
    step = rate * updates.weights.double().mean(0)
    torch.testing.assert_close(step.float(), x, rtol=1e-6, atol=0)


def test_t15_is_exact_in_parameters_that_are_dyadic(make_round):
    updates = make_round([(0, 0, 0), (0.5, -4, 3), (0, 0, 0), (0, 0, 0)])
    x = updates.weights[1].clone()
    ModelReplacement.collude(ReplacementArgs(), updates, [1], Seeds(0))
    assert torch.equal(updates.weights.mean(0), x)


def test_colluders_together_replace_the_global_model_by_the_mean_of_theirs(make_round):
    updates = make_round([(2, 0), (0, 0), (4, 8), (0, 0)])
    ModelReplacement.collude(ReplacementArgs(), updates, [0, 2], Seeds(0))
    assert (updates.weights.mean(0) - updates.global_weights).tolist() == [3, 4]
    assert updates.deltas[[1, 3]].abs().sum() == 0


def test_buffers_are_never_scaled(make_bench, make_round):
    """Scaling BatchNorm statistics makes variances negative (KNOWN_BUGS, X25)."""
    bench = make_bench(ModelReplacement, ReplacementArgs(gamma=100.0))
    sent = bench.fit()
    assert torch.equal(sent.buffers, make_bench(BadNets, NoArgs()).fit().buffers)
    assert (sent.buffers[bench.spec.variances] >= 0).all()
    updates = make_round([(2, 0), (0, 0)])
    before = updates.buffers.clone()
    ModelReplacement.collude(ReplacementArgs(), updates, [0], Seeds(0))
    assert torch.equal(updates.buffers, before)


def test_an_explicit_gamma_scales_once_and_not_again_for_the_round(make_bench, make_round):
    """The paper's code multiplies again by the number of attackers."""
    plain = make_bench(BadNets, NoArgs())
    plain.fit()
    bench = make_bench(ModelReplacement, ReplacementArgs(gamma=3.0))
    bench.fit()
    torch.testing.assert_close(bench.delta, 3 * plain.delta, rtol=1e-5, atol=1e-6)
    updates = make_round([(2, 0), (0, 0)])
    before = updates.weights.clone()
    ModelReplacement.collude(ReplacementArgs(gamma=3.0), updates, [0, 1], Seeds(0))
    assert torch.equal(updates.weights, before)


def test_replacing_leaves_the_trained_model_to_the_round(make_bench):
    sent = make_bench(ModelReplacement, ReplacementArgs()).fit()
    assert torch.equal(sent.weights, make_bench(BadNets, NoArgs()).fit().weights)


def test_the_attackers_own_rate_and_epochs_are_used(make_bench):
    args = ReplacementArgs(gamma=1.0, poison_epochs=3, poison_lr=0.02)
    sent = make_bench(ModelReplacement, args).fit()
    same = make_bench(BadNets, NoArgs(), epochs=3, lr=0.02).fit()
    assert torch.equal(sent.weights, same.weights)


def test_outside_the_window_nothing_is_scaled(make_bench):
    window = {"participation_strategy": "after_convergence", "poisoning_start_round": 5}
    bench = make_bench(ModelReplacement, ReplacementArgs(gamma=50.0), **window)
    sent = bench.fit(round=4)
    client = bench.client
    honest = make_bench(BadNets, NoArgs(), **window)
    assert torch.equal(sent.weights, honest.fit(round=4).weights)
    assert client.data.poisoned.sum() == 0


def test_scaling_does_not_lose_the_difference_to_rounding():
    start = ModelState(torch.tensor([1000.0]), torch.zeros(0))
    near = ModelState(torch.nextafter(start.weights, torch.tensor([2000.0])), torch.zeros(0))
    gap = near.weights.double() - 1000
    out = scaled(near, start, 1024.0)
    assert (out.weights.double() - 1000).item() == pytest.approx(1024 * gap.item())
