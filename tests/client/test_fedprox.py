"""FedProx: the proximal term of honest training, against a loss that autograd differentiates."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.client import Broadcast, Client, LocalData, TrainingContext
from entity.config.schema import ConfigError
from entity.engine import Inline
from entity.layout import ParamSpec
from entity.seeding import Seeds
from entity.setup.assembly import assemble, recruit
from entity.setup.certificate import departures
from entity.setup.identity import identity
from entity.training import Recipe, fit

MU = 3.0


def net(seed=0):
    rng = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3))
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=rng) / 3)
    return model


def batches(steps, seed=1):
    rng = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(5, 1, 4, 4, generator=rng), torch.randint(3, (5,), generator=rng))
        for _ in range(steps)
    ]


def flat(model):
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.mark.parametrize(("momentum", "decay"), [(0.0, 0.0), (0.9, 0.01)])
def test_it_minimises_the_loss_plus_the_proximal_term(momentum, decay):
    """The term is written into the loss here, and its gradient is autograd's."""
    recipe = Recipe(0.05, momentum, decay, 5, 1, prox_mu=MU)
    model, twin = net(), net()
    start = [each.detach().clone() for each in twin.parameters()]
    fit(model, batches(6), recipe)
    sgd = torch.optim.SGD(twin.parameters(), lr=0.05, momentum=momentum, weight_decay=decay)
    for x, y in batches(6):
        away = sum(
            (each - first).square().sum()
            for each, first in zip(twin.parameters(), start, strict=True)
        )
        sgd.zero_grad()
        (F.cross_entropy(twin(x), y) + MU / 2 * away).backward()
        sgd.step()
    torch.testing.assert_close(flat(model), flat(twin), atol=1e-6, rtol=1e-5)
    plain = net()
    fit(plain, batches(6), replace(recipe, prox_mu=0.0))
    assert (flat(model) - flat(plain)).abs().max() > 1e-3
    assert (flat(model) - flat(net())).norm() < (flat(plain) - flat(net())).norm()


def test_two_steps_by_hand_as_the_authors_optimiser_takes_them():
    """One weight, loss -w (a gradient of -1), from w = 1: w <- w - lr (grad + mu (w - 1))."""
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
    recipe = Recipe(0.5, 0.0, 0.0, 1, 1, prox_mu=0.4)
    one = torch.ones(1, 1)
    fit(model, [(one, one), (one, one)], recipe, loss=lambda m, x, y: -m(x).sum())
    # 1 -> 1.5 -> 1.5 + 0.5 - 0.5 * 0.4 * 0.5
    assert model.weight.item() == pytest.approx(1.9)


def test_a_weight_without_a_gradient_stays_and_the_next_round_is_drawn_to_its_own_start():
    model = net()
    model[3].bias.requires_grad_(False)
    before = model[3].bias.clone()
    fit(model, batches(2), Recipe(0.05, 0.0, 0.0, 5, 1, prox_mu=MU))
    assert torch.equal(model[3].bias, before)
    middle = flat(model)
    fit(model, batches(1)[:0], Recipe(0.05, 0.0, 0.0, 5, 1, prox_mu=MU))
    assert torch.equal(flat(model), middle)


@pytest.fixture
def trained(experiment):
    """Return what each client of a federation sends in a round."""

    def of(changes, number=1):
        config = experiment({"federation.round_size": 4, **changes})
        _, roster = recruit(config, Seeds(config.settings.seed))
        state = roster.spec.flatten(roster.new_model())
        sent = Inline(roster).train(Broadcast(number, state), (0, 1, 2, 3)).weights.clone()
        return roster, sent - state.weights

    return of


LATER = {
    "client.attack.participation_strategy": "after_convergence",
    "client.attack.poisoning_start_round": 9,
}


def test_attackers_train_without_it_while_they_poison_and_with_it_before(trained):
    roster, plain = trained({})
    _, drawn = trained({"client.prox_mu": MU})
    (attacker,) = roster.malicious
    honest = [client for client in range(4) if client != attacker]
    assert torch.equal(plain[attacker], drawn[attacker])
    assert (drawn[honest].norm(dim=1) < plain[honest].norm(dim=1)).all()
    _, before = trained({"client.prox_mu": MU} | LATER)
    _, all_plain = trained(LATER)
    assert (before.norm(dim=1) < all_plain.norm(dim=1)).all()


def test_untargeted_attackers_start_from_updates_like_the_benign_ones(trained):
    attack = {"client.attack": {"type": "alie", "target_class": 7}}
    roster, plain = trained(attack)
    _, drawn = trained({"client.prox_mu": MU} | attack)
    (attacker,) = roster.malicious
    assert drawn[attacker].norm() < plain[attacker].norm()


def test_zero_is_no_term_and_no_part_of_an_identity(trained, experiment):
    assert torch.equal(trained({"client.prox_mu": 0.0})[1], trained({})[1])
    assert identity(experiment({"client.prox_mu": 0.0})) == identity(experiment())
    assert identity(experiment({"client.prox_mu": 0.1})) != identity(experiment())
    with pytest.raises(ConfigError, match=r"client.prox_mu = -1"):
        experiment({"client.prox_mu": -1})


def test_a_defense_that_trains_beside_the_clients_trains_as_they_do(experiment):
    changes = {"client.prox_mu": MU, "server.defense": {"type": "fltrust"}, "server.held_out": 100}
    world = assemble(experiment(changes))
    assert world.server.resources.recipe.prox_mu == MU
    assert world.roster.recipe.prox_mu == 0
    said = list(departures(world.config, world.roster))
    assert "clients train with the proximal term of FedProx, mu 3" in said


def test_a_client_of_one_sample_and_batch_norm_is_drawn_back_too():
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    spec = ParamSpec.of(model)
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(256, (4, 1, 4, 4), generator=rng).to(torch.uint8)
    data = LocalData(x, torch.tensor([0, 1, 2, 0]), torch.zeros(4, dtype=torch.bool))
    context = TrainingContext(Recipe(0.1, 0, 0, 2, 3), None, Seeds(1), spec, prox_mu=1e3)
    stiff = TrainingContext(Recipe(1e-3, 0, 0, 2, 3), None, Seeds(1), spec, prox_mu=1e3)
    start = spec.flatten(model)
    Client(0, data, stiff).fit(model, Broadcast(1, start))
    near = (spec.flatten(model).weights - start.weights).norm()
    spec.load(model, start)
    Client(0, data, replace(context, prox_mu=0.0)).fit(model, Broadcast(1, start))
    assert near < (spec.flatten(model).weights - start.weights).norm() / 10
