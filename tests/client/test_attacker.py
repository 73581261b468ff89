"""What all attacks share: the window, the poisoned copy, and what is sent in its place."""

from dataclasses import replace

import pytest
import torch

from entity.attacks.badnets import BadNets
from entity.client import Attacker, Broadcast, Client
from entity.client.attacker import NoArgs
from entity.engine.local_training import single_threaded
from entity.layout import ModelState

WINDOW = {
    "participation_strategy": "after_convergence",
    "poisoning_start_round": 3,
    "poisoning_end_round": 5,
}


class Loud(Attacker):
    """Overrides everything that an attack may."""

    watches_steps = True

    def poisoned(self):
        raise AssertionError("poisoned data outside the window")

    def local_loss(self, model, x, y):
        raise AssertionError("the attack's loss outside the window")

    def after_step(self, model):
        raise AssertionError("the attack's steps outside the window")

    def craft(self, trained, broadcast):
        raise AssertionError("a crafted model outside the window")


def honest_in(bench, round):
    """What a benign client with the attacker's id and data sends."""
    benign = Client(bench.client.id, bench.client.data, bench.client.context)
    bench.spec.load(bench.model, bench.start)
    with single_threaded():
        benign.fit(bench.model, Broadcast(round, bench.start))
    return bench.state


@pytest.mark.parametrize("attacker", [BadNets, Loud])
@pytest.mark.parametrize("round", [1, 2, 5, 6])
@pytest.mark.parametrize("batchwise", [False, True])
def test_outside_the_window_an_attacker_is_a_benign_client_to_the_bit(
    make_bench, attacker, round, batchwise
):
    """In the original code the window counted with batch-wise poison only."""
    bench = make_bench(attacker, NoArgs(), **WINDOW)
    bench.client.context = replace(bench.client.context, batchwise_poison=batchwise)
    sent = bench.fit(round=round)
    honest = honest_in(bench, round)
    assert torch.equal(sent.weights, honest.weights)
    assert torch.equal(sent.buffers, honest.buffers)


@pytest.mark.parametrize("round", [3, 4])
def test_inside_the_window_it_poisons(make_bench, round):
    bench = make_bench(BadNets, NoArgs(), **WINDOW)
    quiet = make_bench(BadNets, NoArgs(), **WINDOW, DPR=0.0)
    sent = bench.fit(round=round)
    honest = honest_in(bench, round)
    assert not torch.equal(sent.weights, honest.weights)
    # Without a sample to poison it sends what a benign client sends.
    assert torch.equal(quiet.fit(round=round).weights, honest.weights)


def test_the_poisoned_copy_differs_at_the_chosen_rows_and_nowhere_else(make_bench):
    client = make_bench(BadNets, NoArgs()).client
    before = client.data.x.clone(), client.data.y.clone()
    bad = client.poisoned()
    rows = client.plan.targets
    assert (client.data.y[rows] == 0).all()  # the victims
    assert len(rows) == 10
    other = torch.ones(len(client.data), dtype=torch.bool)
    other[rows] = False
    assert torch.equal(bad.x[other], client.data.x[other])
    assert torch.equal(bad.y[other], client.data.y[other])
    assert torch.equal(bad.poisoned, ~other)
    assert (bad.y[rows] == 2).all()
    changed = (bad.x[rows] != client.data.x[rows]).any(0)[0].nonzero().tolist()
    assert changed == [[1, 1], [1, 3], [2, 2], [3, 3]]
    assert torch.equal(client.data.x, before[0])  # a copy: the clean data is needed later
    assert torch.equal(client.data.y, before[1])
    assert not client.data.poisoned.any()


def test_the_same_samples_are_poisoned_alike_in_every_round(make_bench):
    client = make_bench(BadNets, NoArgs()).client
    one, other = client.poisoned(), client.poisoned()
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.poisoned, other.poisoned)


def test_what_is_crafted_is_what_is_sent(make_bench):
    class Boaster(Attacker):
        def craft(self, trained, broadcast):
            far = broadcast.state.weights + 3 * (trained.weights - broadcast.state.weights)
            return ModelState(far, trained.buffers)

    plain, boast = make_bench(BadNets, NoArgs()), make_bench(Boaster, NoArgs())
    plain.fit()
    boast.fit()
    torch.testing.assert_close(boast.delta, 3 * plain.delta, atol=1e-5, rtol=1e-4)
    assert torch.equal(boast.state.buffers, plain.state.buffers)


def test_an_attack_without_a_conspiracy_leaves_the_round_alone(make_round):
    updates = make_round([[1.0, 2.0], [3.0, 4.0]])
    before = updates.weights.clone()
    Attacker.collude(NoArgs(), updates, [0], None)
    assert torch.equal(updates.weights, before)
