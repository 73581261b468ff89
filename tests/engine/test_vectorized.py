"""Stacked clients end where clients that train one after another end, within 1e-4."""

import logging

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.attacks import ATTACKS
from entity.client import Broadcast, Client
from entity.config.schema import ConfigError
from entity.engine import Inline, Vectorized, choose_engine
from entity.engine.stacked import fit_stacked
from entity.engine.vectorized import obstacle, obstacle_of
from entity.experiment import run
from entity.models import build
from entity.seeding import Seeds
from entity.setup.assembly import recruit
from entity.training import Recipe, fit

TOLERANCE = 1e-4
SKEWED = {"client.IID": False, "client.dirichlet_alpha": 1.0, "client.min_samples": 5}
"""Clients of different sizes: other numbers of steps, and smaller last batches."""


def both(config, *rounds):
    """Return the weights of some rounds by either engine, each from the mean of the one before."""
    _, roster = recruit(config, Seeds(config.settings.seed))
    ids = tuple(range(config.federation.round_size))
    found = []
    for engine in (Inline(roster), Vectorized(roster)):
        state = roster.spec.flatten(roster.new_model())
        for number in rounds:
            updates = engine.train(Broadcast(number, state), ids)
            state = state._replace(weights=updates.weights.mean(0))
        found.append((state, updates.weights.clone()))
    return found


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "cnn"},
        # At a rate of 0.05 max-pooling makes 2e-4 of a rounding on some processors.
        {"model": "lenet", "client.transform": True, "client.num_epochs": 2, "client.lr": 0.02},
        {"model": "cnn", "client.attack": None},
        {"model": "cnn", "settings.num_parallel_max": 2},
        {"model": "cnn", "client.batchwise_poison": True, "client.momentum": 0.0},
        {"model": "cnn", "client.prox_mu": 2.0},
    ],
    ids=["cnn", "lenet", "no-attack", "in-two-stacks", "poison-in-every-batch", "fedprox"],
)
def test_stacked_clients_end_where_single_ones_end(experiment, caplog, changes):
    with caplog.at_level(logging.INFO, "entity"):
        one, other = both(experiment({**SKEWED, **changes, "federation.round_size": 4}), 1, 2)
    assert "engine vectorized" not in caplog.text  # nobody was trained by the other engine
    start = (one[1] - other[1]).abs()
    assert start.max() < TOLERANCE
    moved = (one[1] - one[1].mean(0)).abs().amax(1)
    assert (moved > 10 * TOLERANCE).all()  # clients differ from each other by much more


def test_padding_and_early_ends_do_not_count():
    """By hand: two linear models on 3 and 1 batches of unequal sizes, against `training.fit`."""
    rng = torch.Generator().manual_seed(3)
    recipe = Recipe(0.1, 0.9, 0.01, 4, 1)

    def batch(size):
        x = torch.randn(size, 1, 2, 2, generator=rng)
        return x, torch.randint(3, (size,), generator=rng)

    batches_of_each = [[batch(4), batch(4), batch(2)], [batch(3)]]
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    found = fit_stacked(model, start, [iter(each) for each in batches_of_each], recipe)
    assert_ends_of_one_after_another(model, start, batches_of_each, recipe, found)


def assert_ends_of_one_after_another(model, start, batches_of_each, recipe, found):
    for batches, parameters in zip(batches_of_each, found, strict=True):
        model.load_state_dict(start)
        fit(model, batches, recipe)
        for name, value in model.named_parameters():
            torch.testing.assert_close(parameters[name], value.detach())


def test_what_fills_up_a_batch_is_a_sample_that_the_client_has():
    """Regression: a model that scales each sample made NaN of zeros, and honest clients left."""
    recipe, model = Recipe(0.1, 0.9, 0.0, 4, 1), Odd("centred").train()
    batches_of_each = [[(torch.randn(k, 4), torch.arange(k) % 2)] for k in (4, 1)]
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    found = fit_stacked(model, start, [iter(each) for each in batches_of_each], recipe)
    assert_ends_of_one_after_another(model, start, batches_of_each, recipe, found)


def test_group_norm_is_stacked_exactly():
    """In double precision, since a step of a deep network makes much of a float's rounding."""
    rng = torch.Generator().manual_seed(3)
    recipe = Recipe(0.05, 0.9, 0.005, 6, 1)
    model = build("resnet8", 3, 8, 4, rng, "group").double()
    start = {name: value.detach().clone() for name, value in model.named_parameters()}
    batches_of_each = [
        [
            (torch.randn(size, 3, 8, 8, generator=rng).double(), torch.arange(size) % 4)
            for size in sizes
        ]
        for sizes in ((6, 6, 2), (6, 5))
    ]
    found = fit_stacked(model, start, [iter(each) for each in batches_of_each], recipe)
    for batches, parameters in zip(batches_of_each, found, strict=True):
        model.load_state_dict(start)
        fit(model, batches, recipe)
        for name, value in model.named_parameters():
            assert (parameters[name] - value).abs().max() < 1e-8
            assert (start[name] - value).abs().max() > 1e-4


def test_bfloat16_is_no_further_from_the_plain_loop_than_from_full_precision(experiment):
    config = experiment({"client.amp_enabled": True, "client.attack": None})
    (_, one), (_, other) = both(config, 1)
    (_, exact), _ = both(experiment({"client.attack": None}), 1)
    assert (other - exact).abs().max() > TOLERANCE
    assert (other - one).norm() < 1.5 * (one - exact).norm()


def test_batch_norm_and_dropout_are_trained_one_after_another(make_roster, ids, caplog):
    roster = make_roster({"settings.engine": "vectorized"}, benign=Client)
    state = roster.spec.flatten(roster.new_model())
    with caplog.at_level(logging.INFO, "entity"):
        updates = Vectorized(roster).train(Broadcast(1, state), ids)
    expected = Inline(roster).train(Broadcast(1, state), ids)
    assert torch.equal(updates.weights, expected.weights)
    assert torch.equal(updates.buffers, expected.buffers)
    assert caplog.messages == [
        "engine vectorized: the model has buffers, as BatchNorm has (norm: group has none), so "
        "one trains after another"
    ]


def test_dropout_is_an_obstacle(experiment):
    _, roster = recruit(experiment({"client.attack": None}), Seeds(1))
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 2))
    assert "dropout" in obstacle(roster.client(0), Broadcast(1, None), model)


class Odd(nn.Module):
    """Linear, with a layer that never learns, one that nobody uses, or noise of its own."""

    def __init__(self, kind):
        super().__init__()
        self.first, self.last, self.kind = nn.Linear(4, 4), nn.Linear(4, 2), kind
        self.spare = nn.Linear(4, 4) if kind == "unused" else None
        if kind == "norm":
            self.last = nn.Sequential(nn.BatchNorm1d(4, track_running_stats=False), self.last)
        self.first.requires_grad_(kind != "frozen")

    def forward(self, x):
        if self.kind == "batch":
            x = F.batch_norm(x, None, None, training=True)
        if self.kind == "grown":
            self.register_buffer("mean", torch.zeros(1), persistent=False)
        if self.kind == "centred":
            x = (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)
        return self.last(F.dropout(self.first(x)) if self.kind == "dropout" else self.first(x))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("plain", ""),
        ("frozen", "the model has frozen parameters"),
        ("norm", "the model has BatchNorm"),
        ("unused", "the model has parameters without a gradient"),
        ("dropout", "the model cannot be stacked (vmap: called random operation"),
        ("batch", "what the model answers to a sample depends on the others of its batch"),
        ("grown", "the model has buffers once it is used"),
        ("centred", ""),
    ],
)
def test_a_model_that_stacked_training_would_treat_in_another_way_is_not_stacked(kind, why):
    batch = torch.randn(3, 4), torch.tensor([0, 1, 0])
    found = obstacle_of(Odd(kind).train(), batch, Recipe(0.1, 0.9, 0.1, 3, 1))
    assert found.startswith(why)
    assert bool(found) == bool(why)


def test_what_an_attack_of_one_s_own_sends_is_checked(experiment, monkeypatch):
    config = experiment({"client.attack.type": "sign_flip", "federation.round_size": 4})
    sign_flip = ATTACKS["sign_flip"]

    def short(self, trained, broadcast):
        return trained._replace(weights=torch.full((1,), 7.0))

    monkeypatch.setattr(sign_flip, "craft", short)
    with pytest.raises(ConfigError, match=r"craft"):
        both(config, 1)


def test_an_attack_with_a_loop_of_its_own_is_trained_beside_the_stack(experiment, caplog):
    config = experiment({"client.attack.type": "neurotoxin", "federation.round_size": 4})
    with caplog.at_level(logging.INFO, "entity"):
        (_, one), (_, other) = both(config, 1)
    assert (one - other).abs().max() < TOLERANCE
    assert (
        caplog.messages.count(
            "engine vectorized: clients of Neurotoxin train in a way of their own, so one trains "
            "after another"
        )
        == 1
    )


def test_what_an_attacker_makes_of_its_model_is_sent(experiment):
    config = experiment({"client.attack.type": "sign_flip", "federation.round_size": 4})
    (_, one), (_, other) = both(config, 1)
    assert (one - other).abs().max() < TOLERANCE


def test_a_whole_run_and_its_engine_is_part_of_what_it_is(experiment):
    from entity.setup.resolve import identity

    one = run(experiment())
    config = experiment({"settings.engine": "vectorized"})
    other = run(config)
    assert (one.state.weights - other.state.weights).abs().max() < TOLERANCE
    assert identity(config) != identity(experiment())
    assert identity(experiment({"settings.engine": "pool"})) == identity(experiment())


@pytest.mark.usefixtures("importable_main")
def test_auto_never_chooses_it_on_the_cpu(make_roster):
    changes = {"settings.engine": "auto", "settings.workers": 1}
    assert choose_engine(make_roster(changes)) == "inline"
    assert choose_engine(make_roster({**changes, "settings.workers": 4})) == "pool"
