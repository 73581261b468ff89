"""Local differential privacy, against samples that are differentiated one after another."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from entity.client import Broadcast
from entity.client.privacy import Privacy, clipped_sums, fit_privately, private_update
from entity.config.schema import ConfigError
from entity.engine import Inline, Vectorized
from entity.engine.vectorized import obstacle
from entity.layout import ModelState
from entity.models import Classifier
from entity.seeding import Seeds
from entity.setup.assembly import assemble, recruit
from entity.setup.certificate import departures
from entity.setup.identity import identity
from entity.setup.resolve import experiment as resolved
from entity.training import Recipe, fit

EXACT = {"atol": 1e-6, "rtol": 1e-5}


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def net():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        for each in model.parameters():
            each.copy_(torch.randn(each.shape, generator=rng(3)))
    return model


def batches(steps, size=5, seed=1):
    draw = rng(seed)
    return [
        (torch.randn(size, 1, 4, 4, generator=draw), torch.randint(4, (size,), generator=draw))
        for _ in range(steps)
    ]


def by_samples(model, x, y, clip):
    """Return the sum of clipped gradients (P,) in NumPy, and all norms before."""
    total, lengths = 0.0, []
    for image, label in zip(x, y, strict=True):
        model.zero_grad()
        F.cross_entropy(model(image[None]), label[None]).backward()
        learned = [each.grad.flatten() for each in model.parameters() if each.requires_grad]
        gradient = torch.cat(learned).double().numpy()
        length = np.linalg.norm(gradient)
        lengths.append(length)
        total = total + gradient * min(1.0, clip / length)
    model.zero_grad()
    return total, lengths


def flat(values):
    return torch.cat([each.detach().flatten() for each in values])


# Samples


def test_each_samples_gradient_is_cut_by_its_norm_over_all_parameters():
    ((x, y),) = batches(1, size=12)
    clip = float(np.median(by_samples(net(), x, y, clip=1.0)[1]))
    expected, lengths = by_samples(net(), x, y, clip)
    assert min(lengths) < 0.9 * clip < 1.1 * clip < max(lengths)
    found = flat(clipped_sums(net(), x, y, clip).values())
    np.testing.assert_allclose(found.numpy(), expected, **EXACT)


def test_a_frozen_layer_stays_and_counts_in_no_norm():
    model = net()
    model[0].requires_grad_(False)
    ((x, y),) = batches(1, size=12)
    clip = float(np.median(by_samples(model, x, y, clip=1.0)[1]))
    expected, lengths = by_samples(model, x, y, clip)
    assert min(lengths) < clip < max(lengths)
    found = clipped_sums(model, x, y, clip)
    np.testing.assert_allclose(flat(found.values()).numpy(), expected, **EXACT)
    recipe = Recipe(0.05, 0.9, 0.01, 5, 1, prox_mu=1.0)
    fit_privately(model, batches(3), recipe, Privacy(clip, 1.0, "sample"), rng())
    assert torch.equal(flat(model[0].parameters()), flat(net()[0].parameters()))
    assert not torch.equal(model[3].weight, net()[3].weight)


def test_pieces_of_a_batch_that_fit_in_memory_make_the_same_sum(monkeypatch):
    ((x, y),) = batches(1, size=7)
    whole = clipped_sums(net(), x, y, 0.5)
    monkeypatch.setattr("entity.client.privacy._MOST", 1)
    for one, other in zip(whole.values(), clipped_sums(net(), x, y, 0.5).values(), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


@pytest.mark.parametrize("mu", [0.0, 2.0])
def test_with_nothing_to_cut_and_no_noise_it_is_plain_training(mu):
    recipe = Recipe(0.05, 0.9, 0.01, 5, 1, prox_mu=mu)
    one, other = net(), net()
    fit(one, batches(6), recipe)
    fit_privately(other, batches(6), recipe, Privacy(1e6, 0.0, "sample"), rng())
    torch.testing.assert_close(flat(one.parameters()), flat(other.parameters()), **EXACT)


def test_a_step_is_the_noised_sum_over_the_size_of_the_batch():
    model, clip, sigma = net(), 0.7, 0.3
    ((x, y),) = batches(1)
    before = flat(model.parameters())
    total, _ = by_samples(net(), x, y, clip)
    fit_privately(
        model, [(x, y)], Recipe(0.1, 0.0, 0.0, 5, 1), Privacy(clip, sigma, "sample"), rng(8)
    )
    draw = rng(8)
    noise = flat([torch.randn(each.shape, generator=draw) for each in model.parameters()])
    expected = before - 0.1 * (torch.from_numpy(total).float() + sigma * clip * noise) / 5
    torch.testing.assert_close(flat(model.parameters()), expected, **EXACT)


# Updates


def state(values):
    return ModelState(torch.tensor(values), torch.tensor([5.0]))


def test_an_update_is_cut_to_the_norm_and_a_short_one_stays():
    start, quiet = torch.tensor([1.0, -1.0]), Privacy(1.0, 0.0, "update")
    cut = private_update(state([4.0, 3.0]), start, quiet, rng())
    torch.testing.assert_close(cut.weights, torch.tensor([1.6, -0.2]))
    assert cut.buffers.tolist() == [5.0]
    assert private_update(state([1.5, -1.5]), start, quiet, rng()).weights.tolist() == [1.5, -1.5]
    assert private_update(state([1.0, -1.0]), start, quiet, rng()).weights.tolist() == [1.0, -1.0]
    huge = private_update(state([3e38, -1.0]), start, quiet, rng()).weights
    assert huge.tolist() == [2.0, -1.0]


def test_it_is_cut_as_flower_cuts_it():
    flower = pytest.importorskip("flwr.supercore.differential_privacy")
    start = torch.randn(30, generator=rng(1))
    sent = start + torch.randn(30, generator=rng(2))
    theirs = [sent.numpy().copy()]
    flower.compute_clip_model_update(theirs, [start.numpy()], 2.0)
    found = private_update(
        ModelState(sent, torch.zeros(0)), start, Privacy(2.0, 0.0, "update"), rng()
    )
    np.testing.assert_allclose(found.weights.numpy(), theirs[0], **EXACT)


def test_the_noise_has_the_standard_deviation_that_is_asked_for():
    start = torch.zeros(40_000)
    trained = ModelState(start, torch.zeros(0))
    found = private_update(trained, start, Privacy(0.5, 2.0, "update"), rng()).weights
    assert float(found.std()) == pytest.approx(1.0, rel=0.02)
    assert float(found.mean()) == pytest.approx(0.0, abs=0.02)


# In a federation


@pytest.fixture
def trained(experiment):
    """Return what each client of a federation adds in a round."""

    def of(changes, number=1, engine=Inline):
        config = experiment({"federation.round_size": 4, **changes})
        _, roster = recruit(config, Seeds(config.settings.seed))
        start = roster.spec.flatten(roster.new_model())
        sent = engine(roster).train(Broadcast(number, start), (0, 1, 2, 3)).weights.clone()
        return roster, sent - start.weights

    return of


QUIET = {"client.dp_clip": 0.01, "client.dp_noise": 0.0, "client.dp_unit": "update"}
LATER = {
    "client.attack.participation_strategy": "after_convergence",
    "client.attack.poisoning_start_round": 9,
}


def test_honest_clients_are_cut_and_attackers_only_where_they_do_not_poison(trained):
    roster, plain = trained({})
    _, cut = trained(QUIET)
    (attacker,) = roster.malicious
    honest = [client for client in range(4) if client != attacker]
    assert torch.equal(plain[attacker], cut[attacker])
    torch.testing.assert_close(cut[honest].norm(dim=1), torch.full((3,), 0.01), **EXACT)
    _, before = trained(QUIET | LATER)
    torch.testing.assert_close(before.norm(dim=1), torch.full((4,), 0.01), **EXACT)


def with_frozen_layer(channels, size, classes):
    """A user's model that trains its head alone."""
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), nn.Tanh())
    return Classifier(body.requires_grad_(False), nn.Linear(8, classes))


@pytest.mark.parametrize("unit", ["sample", "update"])
def test_noise_moves_no_frozen_layer(trained, unit):
    model = f"{__name__}:with_frozen_layer"
    private = {"client.dp_clip": 1.0, "client.dp_unit": unit, "client.attack": None}
    roster, moved = trained({**private, "model": model, "client.ADR": 0.1})
    frozen = torch.cat([slot.of(moved).flatten(1) for slot in roster.spec.parameters[:2]], dim=1)
    assert (frozen == 0).all()
    assert (roster.spec.parameters[2].of(moved) != 0).all()


def test_noise_is_the_clients_and_the_rounds_own_and_the_same_again(trained):
    noisy = {**QUIET, "client.dp_noise": 100.0, "client.attack": None}
    found = trained(noisy)[1]
    assert torch.equal(found, trained(noisy)[1])
    later = trained(noisy, number=2)[1]
    cosines = torch.corrcoef(torch.cat([found, later]))
    assert (cosines - torch.eye(8)).abs().max() < 0.05


def test_stacked_clients_are_cut_and_noised_as_single_ones_are(trained, caplog):
    noisy = {**QUIET, "client.dp_clip": 0.3, "client.dp_noise": 0.01}
    with caplog.at_level("INFO", "entity"):
        torch.testing.assert_close(
            trained(noisy)[1], trained(noisy, engine=Vectorized)[1], atol=1e-4, rtol=0
        )
    assert "engine vectorized" not in caplog.text


def test_clients_that_protect_samples_train_one_after_another(trained, experiment):
    private = {"client.dp_clip": 1.0, "client.ADR": 0.02}
    roster, one = trained(private)
    (attacker,) = roster.malicious
    honest = min(set(range(4)) - {attacker})
    _, other = trained(private, engine=Vectorized)
    assert torch.equal(one[honest], other[honest])
    _, plain = trained({"client.ADR": 0.02})
    assert torch.equal(one[attacker], plain[attacker])
    assert not torch.allclose(one[honest], plain[honest])
    model = roster.new_model()
    start = Broadcast(1, roster.spec.flatten(model))
    assert obstacle(roster.client(honest), start, model).startswith("privacy of samples")
    assert obstacle(roster.client(attacker), start, model) == ""


def test_null_is_no_privacy_and_no_part_of_an_identity(experiment):
    assert identity(experiment({"client.dp_clip": None})) == identity(experiment())
    assert identity(experiment({"client.dp_clip": 1.0})) != identity(experiment())
    config = experiment({"client.dp_clip": 1.0, "server.defense": {"type": "crfl"}})
    said = list(departures(config, recruit(config, Seeds(1))[1]))
    assert "clients clip and noise what they learn (theorem: plain SGD)" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"client.dp_clip": 0}, "client.dp_clip = 0"),
        ({"client.dp_clip": 1.0, "client.dp_unit": "client"}, "client.dp_unit = "),
        ({"client.dp_clip": 1.0, "server.defense": {"type": "flip"}}, "clients of flip train in"),
    ],
)
def test_impossible_settings_are_refused(experiment, changes, words):
    with pytest.raises(ConfigError, match=words):
        experiment(changes)


def test_a_model_with_batch_norm_has_no_gradient_of_one_sample(experiment):
    changes = {"client.dp_clip": 1.0, "model": "resnet8"}
    with pytest.raises(ConfigError, match=r"model = resnet8 has buffers.*set norm = group"):
        assemble(experiment(changes))
    assemble(experiment({**changes, "norm": "group"}))
    assemble(experiment({**changes, "client.dp_unit": "update"}))


def without_statistics(channels, size, classes):
    """A user's model whose BatchNorm has no buffers."""
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    body = nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, 8), norm)
    return Classifier(body, nn.Linear(8, classes))


def test_nor_has_one_whose_batch_norm_keeps_no_statistics(experiment):
    changes = {"client.dp_clip": 1.0, "model": f"{__name__}:without_statistics"}
    with pytest.raises(ConfigError, match=r"without_statistics has BatchNorm, so that a gradient"):
        assemble(experiment(changes))
    assemble(experiment({**changes, "client.dp_unit": "update"}))


def test_noise_without_a_norm_does_nothing(tables):
    with pytest.raises(ConfigError, match=r"does nothing without client\.dp_clip set"):
        resolved(tables(), [("dp_noise", "0.5")])
    assert replace(resolved(tables(), [("dp_clip", "2")]).client, dp_clip=None)
