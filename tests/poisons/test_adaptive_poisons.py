"""A3FL and IBA: what colluders learn from the global model before a poisoned round."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from entity.config.fields import AttackConfig
from entity.config.schema import ConfigError
from entity.dataset import Images, normalise
from entity.poisons.a3fl import A3fl, A3flArgs, likeness
from entity.poisons.iba import Iba, IbaArgs

ATTACK = AttackConfig("badnets", target_class=2, victim_class=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 30, size: int = 10) -> Images:
    x = torch.randint(256, (n, 1, size, size), generator=generator(1), dtype=torch.uint8)
    return Images(x, torch.arange(n) % 3)


def linear(size: int = 10, seed: int = 5) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(size * size, 3))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.1, generator=generator(seed))
    return model


def target_loss(model: nn.Module, pixels: torch.Tensor) -> float:
    wanted = torch.full((len(pixels),), ATTACK.target_class)
    return nn.functional.cross_entropy(model(normalise(pixels)), wanted).item()


def a3fl(**args: float) -> A3fl:
    changes = {"a3fl_size": 3, "a3fl_offset": 1, "a3fl_epochs": 4, **args}
    return A3fl(ATTACK, A3flArgs(**changes), 1, 10)  # pyright: ignore[reportArgumentType]


def iba(**args: float) -> Iba:
    changes = {"iba_epochs": 10, "iba_local_asr": 0.0, **args}
    return Iba(ATTACK, IbaArgs(**changes), 1, 10)  # pyright: ignore[reportArgumentType]


def test_a3fl_s_step_is_the_sign_of_the_gradient_that_numpy_finds():
    poison, model, data = a3fl(a3fl_epochs=1, a3fl_lambda=0, a3fl_step=0.07), linear(), images()
    before = poison.delta.numpy().copy()
    poison.adapt(model, data, 1, generator())

    keep = (data.y != 2).numpy()
    mask = np.zeros((10, 10), dtype=bool)
    mask[1:4, 1:4] = True
    x = (data.x.numpy()[keep, 0] / 127.5 - 1).astype(np.float64)
    x[:, mask] = 0.5
    weight = model[1].weight.detach().double().numpy()
    logits = x.reshape(len(x), -1) @ weight.T + model[1].bias.detach().double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    chances[:, 2] -= 1
    slope = (chances.mean(0) @ weight).reshape(10, 10)
    expected = np.where(mask, 0.5 - 0.07 * np.sign(slope), before[0])
    np.testing.assert_allclose(poison.delta[0].numpy(), expected, atol=1e-6)


def test_a3fl_lowers_the_loss_it_searches_and_changes_nothing_but_its_square():
    poison, model, data = a3fl(a3fl_epochs=30, a3fl_step=0.05), linear(), images()
    before = target_loss(model, poison.test_set(data).x)
    weights = [p.clone() for p in model.parameters()]
    poison.adapt(model, data, 1, generator())
    attacked = poison.test_set(data)
    assert target_loss(model, attacked.x) < before
    assert set(attacked.y.tolist()) == {2}
    outside = ~poison.mask.expand(20, 1, 10, 10)
    assert torch.equal(attacked.x[outside], data.x[data.y != 2][outside])
    assert poison.delta.abs().max() <= 1
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_a3fl_with_an_unlearning_model_finds_another_trigger():
    alone, against = a3fl(a3fl_lambda=0, a3fl_epochs=8), a3fl(a3fl_lambda=5.0, a3fl_epochs=8)
    for poison in (alone, against):
        poison.adapt(linear(), images(), 1, generator())
    assert not torch.equal(alone.delta, against.delta)


def test_a3fl_with_a_victim_class_looks_at_its_images():
    attack = AttackConfig("badnets", target_class=2, victim_class=1)
    args = A3flArgs(a3fl_size=3, a3fl_epochs=2, a3fl_lambda=0, a3fl_batch_size=100)
    one, other = A3fl(attack, args, 1, 10), A3fl(attack, args, 1, 10)
    data = images()
    blackened = Images(data.x.clone(), data.y)
    blackened.x[data.y == 0] = 0
    one.adapt(linear(), data, 1, generator())
    other.adapt(linear(), blackened, 1, generator())
    assert torch.equal(one.delta, other.delta)
    nobody = data.subset(data.y == 0)
    assert torch.equal(one.adapt(linear(), nobody, 2, generator())["delta"], other.delta)


def test_likeness_is_a_cosine_of_weights():
    model = linear()
    flipped = linear()
    with torch.no_grad():
        flipped[1].weight.neg_()
    assert likeness(model, model) == pytest.approx(1)
    assert likeness(model, flipped) == pytest.approx(-1)
    conv = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(2, 2))
    other = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Linear(2, 2))
    other[0].weight = conv[0].weight
    assert likeness(conv, other) == pytest.approx(1)  # convolutions alone count


def test_a_trigger_that_leaves_the_image_is_refused():
    with pytest.raises(ConfigError, match="a3fl_offset = 8: a trigger of 5 pixels"):
        A3fl(ATTACK, A3flArgs(a3fl_offset=8), 1, 10)


@pytest.mark.parametrize("make", [a3fl, iba])
def test_whoever_recalls_what_was_learnt_poisons_alike(make):
    poison, other, data = make(), make(), images()
    memory = poison.adapt(linear(), data, 1, generator())
    other.recall({})
    assert not torch.equal(other.test_set(data).x, poison.test_set(data).x)
    other.recall(memory)
    assert torch.equal(other.test_set(data).x, poison.test_set(data).x)
    ours, theirs = (p.poison(data, 0, generator()) for p in (poison, other))
    assert torch.equal(ours.x, theirs.x)
    assert torch.equal(ours.y, theirs.y)


@pytest.mark.parametrize("make", [a3fl, iba])
def test_who_has_learnt_nothing_yet_recalls_the_start(make):
    """A process of Flower's may train one node after another with one poison."""
    poison, fresh, data = make(), make(), images()
    poison.adapt(linear(), data, 1, generator())
    poison.recall({})
    assert poison.ready == fresh.ready
    assert torch.equal(poison.test_set(data).x, fresh.test_set(data).x)
    again, first = (each.adapt(linear(), data, 1, generator(5)) for each in (poison, fresh))
    assert all(torch.equal(again[name], first[name]) for name in first)


@pytest.mark.parametrize("make", [a3fl, iba])
def test_the_same_seed_learns_the_same(make):
    one, other = (make().adapt(linear(), images(), 3, generator(8)) for _ in range(2))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_iba_perturbs_by_epsilon_at_most_and_lowers_the_loss():
    poison, model, data = iba(iba_epsilon=0.2), linear(), images()
    before = target_loss(model, poison.perturbed(data.x, 0.2))
    poison.adapt(model, data, 1, generator())
    bad = poison.poison(data, 0, generator())
    assert target_loss(model, bad.x) < before
    moved = (bad.x.int() - data.x.int()).abs()
    assert 0.1 * 255 < moved.max() <= 0.2 * 255 + 1  # rounding to pixels
    tested = (poison.test_set(data).x.int() - data.x[data.y != 2].int()).abs()
    assert tested.max() <= 0.06 * 255 + 1


def test_iba_s_generator_still_answers_each_image_in_its_own_way():
    """A ReLU network without normalisation ends at ±1 everywhere, for good."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()), nn.Linear(8 * 16, 3)
    )
    data = images(60)
    data = Images((data.x.float() * 0.2 + 60 * data.y[:, None, None, None]).byte(), data.y)
    adam = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        adam.zero_grad()
        nn.functional.cross_entropy(model(normalise(data.x)), data.y).backward()
        adam.step()
    assert (model(normalise(data.x)).argmax(1) == data.y).float().mean() > 0.9
    poison = iba(iba_epsilon=0.3, iba_epochs=20)
    for round in (1, 2, 3, 4, 5):
        poison.adapt(model, data, round, generator(round))
    with torch.no_grad():
        answers = poison.network(normalise(data.x))
    assert answers.std(0).mean() > 0.02
    assert (answers.abs() > 0.99).float().mean() < 0.9


def test_iba_leaves_the_samples_alone_until_its_generator_fools_the_model():
    poison, data = iba(iba_local_asr=1.0, iba_epsilon=0.001, iba_epsilon_test=0.001), images()
    steadfast = linear()
    with torch.no_grad():
        steadfast[1].bias[0] = 50
    poison.adapt(steadfast, data, 1, generator())
    untouched = poison.poison(data, 0, generator())
    assert torch.equal(untouched.x, data.x)
    assert torch.equal(untouched.y, data.y)
    with torch.no_grad():
        steadfast[1].bias[2] = 100
    poison.adapt(steadfast, data, 2, generator())
    assert poison.begun == 1
    assert set(poison.poison(data, 0, generator()).y.tolist()) == {2}


def test_iba_learns_nothing_from_a_model_that_answers_nan():
    poison, model = iba(iba_local_asr=0.5), linear()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    before = poison._spec.flatten(poison.network).weights.clone()
    memory = poison.adapt(model, images(), 1, generator())
    assert int(memory["begun"]) == 0
    assert torch.equal(memory["weights"], before)


def test_iba_s_epsilon_shrinks_to_its_floor_and_every_other_round_refreshes():
    poison, data, model = (
        iba(iba_epsilon=0.1, iba_decay=0.5, iba_epsilon_test=0.03),
        images(),
        linear(),
    )
    found = [poison.adapt(model, data, number, generator(number)) for number in range(1, 6)]
    # Round 1 begins; ε halves with every later one: 0.1, 0.05, 0.025 -> the floor.
    assert [int(memory["begun"]) for memory in found] == [1, 2, 3, 4, 5]
    assert poison.epsilon == 0.03
    poison.recall(found[1])
    assert poison.epsilon == pytest.approx(0.05)
    same = [torch.equal(a["weights"], b["weights"]) for a, b in pairwise(found)]
    assert same == [True, False, True, False]


def test_iba_s_generator_is_made_for_the_epsilon_that_it_is_used_with(monkeypatch):
    poison, data, model = (
        iba(iba_epsilon=0.4, iba_decay=0.5, iba_epsilon_test=0.01),
        images(),
        linear(),
    )
    made_for: list[float] = []
    improve = poison._improve
    monkeypatch.setattr(
        poison, "_improve", lambda *given: (made_for.append(poison.epsilon), improve(*given))
    )
    used = []
    for number in range(1, 6):
        poison.adapt(model, data, number, generator(number))
        used.append(poison.epsilon)
    assert used == pytest.approx([0.4, 0.2, 0.1, 0.05, 0.025])
    assert made_for == pytest.approx([used[0], used[2], used[4]])
