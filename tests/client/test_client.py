"""Benign clients, and what federated averaging makes of them: steps of centralised training."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.attacks import ATTACKS
from entity.client import Broadcast, Client, LocalData, TrainingContext
from entity.dataset import Images, Shares, normalise
from entity.defenses import Undefended, UndefendedArgs
from entity.engine import Inline
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.seeding import Seeds, global_stream
from entity.server import Averaging, Resources
from entity.setup.resolve import experiment
from entity.setup.roster import Roster
from entity.training import Recipe

SIZES = (4, 9, 17)


def linear(channels, size, classes):
    """No BatchNorm, whose statistics make a mean of steps another thing than a step."""
    features = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 12), nn.Tanh())
    return Classifier(features, nn.Linear(12, classes))


def images(n, seed=3):
    rng = torch.Generator().manual_seed(seed)
    x = torch.randint(256, (n, 1, 8, 8), generator=rng).to(torch.uint8)
    return Images(x, torch.randint(10, (n,), generator=rng))


@pytest.fixture
def roster(tables, monkeypatch):
    """Three clients of 4, 9 and 17 samples that take one full-batch step of plain SGD."""
    monkeypatch.setattr(Roster, "fresh_model", lambda self, rng: _fresh(rng))
    config = experiment(
        tables(
            {
                "client.attack": None,
                "client.lr": 0.1,
                "client.momentum": 0,
                "client.weight_decay": 0,
                "client.batch_size": 1000,
                "federation.size": 3,
                "federation.number_of_malicious_clients": 0,
            }
        )
    )
    ends = torch.tensor([0, *torch.tensor(SIZES).cumsum(0).tolist()])
    shares = Shares(torch.arange(sum(SIZES)), ends)
    return Roster(config, images(sum(SIZES)), shares, frozenset(), None, None, None, 10)


def _fresh(rng):
    with global_stream(rng):
        return linear(1, 8, 10)


def round_of(roster, ids, **averaging):
    """Return the global weights before and after one round of federated averaging."""
    state = roster.spec.flatten(roster.new_model())
    updates = Inline(roster).train(Broadcast(1, state), ids)
    resources = Resources(
        roster.spec,
        roster.fresh_model,
        roster.seeds,
        (1, 8),
        10,
        Averaging(**averaging),
        roster.recipe,
    )
    return state.weights, Undefended(UndefendedArgs(), resources).aggregate(updates).weights


def gradient(roster, x, y):
    """The gradient of the mean loss at the initial model, by autograd alone."""
    model = roster.new_model()
    F.cross_entropy(model(normalise(x)), y).backward()
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


@pytest.mark.parametrize("client", [0, 1, 2])
def test_one_client_one_epoch_one_batch_is_a_step_of_centralised_gradient_descent(roster, client):
    before, after = round_of(roster, (client,))
    own = roster.images.subset(roster.shares[client])
    torch.testing.assert_close(
        after, before - 0.1 * gradient(roster, own.x, own.y), atol=1e-6, rtol=0
    )


def test_sample_weights_make_local_steps_the_step_on_all_data(roster):
    before, after = round_of(roster, (0, 1, 2), weighting="samples")
    step = before - 0.1 * gradient(roster, roster.images.x, roster.images.y)
    torch.testing.assert_close(after, step, atol=1e-6, rtol=0)
    _, uniform = round_of(roster, (0, 1, 2))
    assert (uniform - step).abs().max() > 1e-4  # equal weights are another step


def test_uniform_weights_are_the_mean_of_the_clients_gradients(roster):
    before, after = round_of(roster, (0, 1, 2))
    parts = [roster.images.subset(roster.shares[client]) for client in (0, 1, 2)]
    mean = torch.stack([gradient(roster, part.x, part.y) for part in parts]).mean(0)
    torch.testing.assert_close(after, before - 0.1 * mean, atol=1e-6, rtol=0)


def test_the_server_rate_scales_the_step(roster):
    before, whole = round_of(roster, (0, 1, 2))
    _, half = round_of(roster, (0, 1, 2), server_lr=0.5)
    torch.testing.assert_close(half, before + (whole - before) / 2, atol=1e-6, rtol=0)


def test_local_training_is_sgd_with_momentum_over_the_clients_own_batches(roster):
    """An optimiser written out by hand, on the batches that the client's stream gives."""
    recipe = Recipe(lr=0.05, momentum=0.9, weight_decay=0.01, batch_size=4, epochs=3)
    context = TrainingContext(recipe, None, Seeds(9), roster.spec)
    own = images(13)
    data = LocalData(own.x, own.y, torch.zeros(13, dtype=torch.bool))
    model, twin = roster.new_model(), roster.new_model()
    Client(6, data, context).fit(model, Broadcast(4, roster.spec.flatten(model)))
    velocity = [torch.zeros_like(parameter) for parameter in twin.parameters()]
    rng = Seeds(9).generator("fit", round=4, client=6)
    for x, y in data.batches(4, 3, rng):
        twin.zero_grad()
        F.cross_entropy(twin(x), y).backward()
        with torch.no_grad():
            for parameter, moving in zip(twin.parameters(), velocity, strict=True):
                moving.mul_(0.9).add_(parameter.grad + 0.01 * parameter)
                parameter.sub_(0.05 * moving)
    found, expected = roster.spec.flatten(model), roster.spec.flatten(twin)
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-6, rtol=1e-5)


def test_a_client_with_one_sample_trains_and_batchnorm_is_spared_single_samples(roster):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(72, 10))
    context = TrainingContext(Recipe(0.1, 0, 0, 8, 1), None, Seeds(1), ParamSpec.of(model))
    for n, steps in [(9, 1), (8, 1), (10, 2)]:
        model[1].reset_running_stats()
        own = images(n)
        data = LocalData(own.x, own.y, torch.zeros(n, dtype=torch.bool))
        Client(0, data, context).fit(model, Broadcast(1, context.spec.flatten(model)))
        assert int(model[1].num_batches_tracked) == steps
    plain = linear(1, 8, 10)
    before = ParamSpec.of(plain).flatten(plain).weights
    own = images(1)
    data = LocalData(own.x, own.y, torch.zeros(1, dtype=torch.bool))
    Client(0, data, context).fit(plain, Broadcast(1, context.spec.flatten(model)))
    assert not torch.equal(ParamSpec.of(plain).flatten(plain).weights, before)


def test_a_benign_client_remembers_nothing(roster):
    client = roster.client(0)
    assert client.state_dict() == {}
    client.load_state_dict({})
    assert not client.watches_steps


def test_the_steps_that_attacks_override_are_called(roster):
    calls = []

    class Watcher(Client):
        watches_steps = True

        def local_loss(self, model, x, y):
            calls.append("loss")
            return super().local_loss(model, x, y)

        def after_step(self, model):
            calls.append("step")

    base = roster.client(2)
    context = replace(base.context, recipe=replace(base.context.recipe, batch_size=9))
    model = roster.new_model()
    Watcher(2, base.data, context).fit(model, Broadcast(1, roster.spec.flatten(model)))
    assert calls == ["loss", "step"] * 2


def test_attacks_are_listed_by_name():
    assert "badnets" in ATTACKS
