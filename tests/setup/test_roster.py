import gc
import time
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from entity.attacks import ATTACKS
from entity.client import Attacker, Broadcast, Client
from entity.client.attacker import NoArgs
from entity.dataset import Images, Shares, partition
from entity.dataset.augment import Augmentation
from entity.federation import malicious_clients, select
from entity.layout import ModelState
from entity.models import Classifier
from entity.poisons import POISONS
from entity.poisons.a3fl import A3fl, A3flArgs
from entity.seeding import Seeds, global_stream
from entity.setup import resolve
from entity.setup.roster import Roster
from entity.training import Recipe

SIZES = (20, 30, 12, 8)
WINDOW = {
    "client.attack.victim_class": 2,
    "client.attack.participation_strategy": "after_convergence",
    "client.attack.poisoning_start_round": 2,
    "client.attack.poisoning_end_round": 3,
}


def roster_of(tables, changes=None, malicious=(1, 3), attacker=None, **fields):
    """Four clients on images whose label is their position modulo 10."""
    config = resolve.experiment(tables(changes))
    n = sum(SIZES)
    x = (torch.arange(n) % 200).to(torch.uint8).view(n, 1, 1, 1).expand(n, 1, 28, 28).clone()
    attack = config.client.attack
    return Roster(
        config,
        Images(x, torch.arange(n) % 10),
        Shares.of_owners(np.repeat(np.arange(len(SIZES)), SIZES), len(SIZES)),
        frozenset(malicious if attack else ()),
        attacker or ATTACKS["badnets"],
        attack and POISONS["pixel"](attack, attack.poison_args, 1, 28),
        Augmentation(2, True, 5),
        10,
        **fields,
    )


def test_a_client_is_built_with_its_own_data_when_its_turn_comes(tables):
    roster = roster_of(tables)
    for id, kind in [(0, Client), (1, ATTACKS["badnets"]), (2, Client), (3, ATTACKS["badnets"])]:
        client = roster.client(id)
        assert type(client) is kind
        assert client.id == id
        assert torch.equal(client.data.x, roster.images.x[roster.shares[id]])
        assert torch.equal(client.data.y, roster.images.y[roster.shares[id]])
        assert not client.data.poisoned.any()
    assert roster.num_samples((3, 0)).tolist() == [8, 20]
    assert roster.client(0) is not roster.client(0)


def test_clients_train_as_configured(tables):
    roster = roster_of(tables, {"client.transform": True, "client.batchwise_poison": True})
    context = roster.client(0).context
    assert context.recipe == Recipe(0.05, 0.9, 0.005, 32, 1)
    assert context.augmentation is roster.augmentation
    assert context.batchwise_poison
    assert context.defense_args is roster.config.server.defense.defense_args
    assert roster_of(tables, {"client.transform": False}).client(0).context.augmentation is None


def test_malicious_clients_may_be_kept_in_full_precision(tables):
    changes = {"client.amp_enabled": True, "client.amp_enabled_only_for_clean": True}
    roster = roster_of(tables, changes)
    assert roster.client(0).context.recipe.amp_enabled
    assert not roster.client(1).context.recipe.amp_enabled
    both = roster_of(tables, {"client.amp_enabled": True})
    assert both.client(1).context.recipe.amp_enabled


def test_benign_clients_may_be_a_defenses_own(tables):
    class Hardened(Client):
        pass

    roster = roster_of(tables, benign=Hardened)
    assert [type(roster.client(id)) is Hardened for id in range(4)] == [True, False, True, False]


def test_the_share_of_a_clients_victim_samples_is_poisoned_and_always_the_same_ones(tables):
    roster = roster_of(tables, {"client.attack.DPR": 0.5, "client.attack.victim_class": 3})
    labels = roster.images.y[roster.shares[1]]
    rows = roster.targets(1)
    assert (labels[rows] == 3).all()
    assert len(rows) == int(0.5 * (labels == 3).sum()) == 1
    assert torch.equal(rows, roster.targets(1))
    assert torch.equal(roster.client(1).plan.targets, rows)
    every = roster_of(tables, {"client.attack.victim_class": None}).targets(1)
    assert len(every) == 27  # all but the three of the target class


def test_malicious_clients_are_numbered_by_their_ids(tables):
    roster = roster_of(tables, malicious=(3, 0, 1))
    assert [roster.client(id).plan.rank for id in (0, 1, 3)] == [0, 1, 2]


def test_who_poisons_is_malicious_selected_in_the_window_and_has_something_to_poison(tables):
    roster = roster_of(tables, WINDOW)
    assert roster.poisoning((0, 1, 2, 3), 1) == frozenset()
    assert roster.poisoning((0, 1, 2, 3), 2) == {1, 3}
    assert roster.poisoning((0, 1), 2) == {1}
    assert roster.poisoning((0, 1, 2, 3), 3) == frozenset()
    # Client 3 holds the samples 62 to 69: none of class 1.
    alone = roster_of(tables, {"client.attack.victim_class": 1})
    assert alone.poisoning((0, 1, 2, 3), 1) == {1}
    assert roster_of(tables, {"client.attack": None}).poisoning((0, 1), 1) == frozenset()


def test_only_those_who_poison_collude(tables, make_round):
    calls = []

    class Plotter(Attacker):
        @classmethod
        def collude(cls, args, updates, malicious, seeds):
            calls.append((args, malicious))
            updates.weights[malicious] = 7.0

    roster = roster_of(tables, WINDOW, attacker=Plotter)
    updates = make_round(torch.zeros(4, 3), origin=[1.0, 1.0, 1.0])
    assert updates.norms.tolist() == [0, 0, 0, 0]  # computed before they collude
    start = Broadcast(2, ModelState(updates.global_weights, updates.global_buffers))
    quiet, _ = roster.collude(updates, roster.poisoning(updates.client_ids, 1), start, {})
    assert (quiet.weights == 1).all()
    assert calls == []
    sent, kept = roster.collude(updates, roster.poisoning(updates.client_ids, 2), start, {"a": 1})
    assert kept == {}
    assert calls == [(NoArgs(), [1, 3])]
    assert (sent.weights[[1, 3]] == 7).all()
    assert (sent.weights[[0, 2]] == 1).all()
    assert (sent.norms > 0).tolist() == [False, True, False, True]


def with_dropout(channels, size, classes):
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), nn.Dropout(0.5))
    return Classifier(body, nn.Linear(8, classes))


def test_a_poison_that_trains_a_model_with_dropout_learns_the_same_again(tables):
    """A3FL does; dropout draws from the process's own stream, which nothing seeds."""
    roster = roster_of(tables, {"model": f"{__name__}:with_dropout"})
    args = A3flArgs(a3fl_epochs=3, a3fl_lambda=5.0, a3fl_unlearn_lr=0.1)
    roster = replace(roster, poison=A3fl(roster.config.client.attack, args, 1, 28))
    start = Broadcast(1, roster.spec.flatten(roster.new_model()))
    found = []
    for seed in (1, 2):
        with global_stream(torch.Generator().manual_seed(seed)):
            found.append(roster.adapt(start, frozenset({1})).trigger["delta"])
    assert torch.equal(*found)


def test_the_initial_model_is_the_seeds_alone(tables):
    first, second = (roster_of(tables).new_model().state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = roster_of(tables, {"settings.seed": 2}).new_model().state_dict()
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_ten_thousand_clients_start_at_once_and_take_no_memory_of_their_own(tables):
    clients, samples = 10_000, 60_000
    config = resolve.experiment(
        tables(
            {
                "client.ADR": 1.0,
                "federation.size": clients,
                "federation.number_of_malicious_clients": 2_000,
                "federation.round_size": 100,
            }
        )
    )
    images = Images(torch.zeros(samples, 1, 2, 2, dtype=torch.uint8), torch.arange(samples) % 10)
    gc.collect()
    before, began = len(gc.get_objects()), time.process_time()
    seeds = Seeds(1)
    attack = config.client.attack
    shares = partition(images.y, clients, config.client, seeds)
    malicious = frozenset(malicious_clients(config.federation, attack, seeds))
    poison = POISONS["pixel"](attack, attack.poison_args, 1, 28)
    roster = Roster(config, images, shares, malicious, ATTACKS["badnets"], poison, None, 10)
    chosen = select(config.federation, set(malicious), 1, seeds)
    assert len(roster.poisoning(chosen, 1)) <= 100
    assert roster.num_samples(chosen).sum() == 600
    spent = time.process_time() - began
    gc.collect()
    assert spent < 2
    assert len(gc.get_objects()) - before < 1_000
    assert shares.index.numel() == samples
