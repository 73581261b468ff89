import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entity.client import Broadcast, Client, LocalData, TrainingContext
from entity.client.flip import FlipClient
from entity.dataset import normalise
from entity.defenses.flip import FlipArgs
from entity.engine.local_training import single_threaded
from entity.layout import ModelState, ParamSpec
from entity.seeding import Seeds, global_stream
from entity.sgd import SGD
from entity.training import Recipe, fit, logits, shuffled

CLASSES, SIZE = 3, 10
SOURCE, TARGET = 0, 2
QUICK = FlipArgs(
    size_min=1,
    trigger_steps=(20, 20, 10),
    trigger_lr=0.3,
    trigger_cost=0.01,
    init_mask_chunk=False,
    trigger_size_check_threshold=0.5,
)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def new_model() -> nn.Module:
    with global_stream(generator(5)):
        return nn.Sequential(
            nn.Flatten(), nn.Linear(SIZE**2, 32), nn.ReLU(), nn.Linear(32, CLASSES)
        )


def pictures(count: int, seed: int, classes: int = CLASSES) -> LocalData:
    """Noisy images whose class is the brighter of three bands; their border is noise alone."""
    y = torch.arange(count) % classes
    x = torch.randn(count, 1, SIZE, SIZE, generator=generator(seed)) * 50 + 80
    for row, c in enumerate(y.tolist()):
        x[row, :, 2 + 2 * c : 4 + 2 * c, 2:8] += 110
    pixels = x.clamp(0, 255).to(torch.uint8)
    return LocalData(pixels, y, torch.zeros(count, dtype=torch.bool))


def context(args: Any = QUICK, **changes: Any) -> TrainingContext:
    recipe = Recipe(lr=0.05, momentum=0.9, weight_decay=5e-4, batch_size=12, epochs=2)
    model = new_model()
    return TrainingContext(
        replace(recipe, **changes), None, Seeds(3), ParamSpec.of(model), defense_args=args
    )


def sent(client: Client, round: int = 1, start: ModelState | None = None) -> Tensor:
    """Return the weights that a client sends after a round."""
    model = new_model()
    if start is not None:
        client.context.spec.load(model, start)
    client.fit(model, Broadcast(round, client.context.spec.flatten(model)))
    return client.context.spec.flatten(model).weights


def test_before_its_first_round_a_client_trains_as_everybody_does():
    plain, own = context(), context(replace(QUICK, defense_start_round=5))
    data = pictures(50, 1)
    expected = sent(Client(2, data, plain), round=4)
    flip = FlipClient(2, data, own)
    assert torch.equal(sent(flip, round=4), expected)
    assert flip.state_dict() == {}
    assert not torch.equal(sent(FlipClient(2, data, own), round=5), sent(Client(2, data, plain), 5))


def test_a_batch_without_a_usable_trigger_is_trained_on_as_it_is():
    """The published code and its port drop such batches."""
    data = pictures(50, 1)
    none_fits = context(replace(QUICK, trigger_size_check_threshold=0.0))
    assert torch.equal(sent(FlipClient(2, data, none_fits)), sent(Client(2, data, context())))
    too_few = context(replace(QUICK, size_min=50))
    assert torch.equal(sent(FlipClient(2, data, too_few)), sent(Client(2, data, context())))


def test_hardening_takes_as_many_steps_as_plain_training_with_the_same_optimiser(monkeypatch):
    """The published clients train longer and with Adam, which confounds clean accuracy."""
    steps: list[type] = []
    step = SGD.step
    monkeypatch.setattr(SGD, "step", lambda s: (steps.append(type(s)), step(s))[1])
    sent(FlipClient(2, pictures(50, 1), context()))
    assert len(steps) == 2 * math.ceil(50 / 12)


class Witness(FlipClient):
    """Keeps each batch as it came and as it was trained on."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.seen: list[tuple[Tensor, Tensor, Tensor, bool]] = []

    def _harden(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        warm = self.history is not None and self.history.warmed < CLASSES
        before = x.clone()
        after = super()._harden(model, x, y)
        assert torch.equal(x, before), "the client's own images are not to be written on"
        self.seen.append((before, after, y, warm))
        return after


def changed(before: Tensor, after: Tensor) -> Tensor:
    return (before != after).flatten(1).any(1)


def test_after_the_warm_up_a_portion_of_the_pairs_samples_is_stamped_and_no_other():
    client = Witness(1, pictures(90, 1), context(replace(QUICK, portion=0.5)))
    sent(client)
    assert [warm for *_, warm in client.seen] == [True] * CLASSES + [False] * 13
    hardened = 0
    for before, after, y, warm in client.seen:
        rows = changed(before, after)
        if warm or not rows.any():
            continue
        hardened += 1
        touched = y[rows].unique().tolist()
        assert len(touched) <= 2
        for c in touched:
            assert int(rows[y == c].sum()) == int((y == c).sum()) // 2
    assert hardened >= 8


def test_the_warm_up_stamps_every_class_but_the_target():
    client = Witness(1, pictures(60, 1), context(replace(QUICK, portion=1.0)))
    sent(client)
    stamped = [
        (target, changed(before, after), y)
        for target, (before, after, y, _) in enumerate(client.seen[:CLASSES])
        if changed(before, after).any()
    ]
    assert stamped
    for target, rows, y in stamped:
        assert torch.equal(rows, y != target)


def test_several_pairs_in_a_batch_share_no_source():
    client = Witness(1, pictures(90, 1), context(replace(QUICK, portion=1.0, pairs_per_batch=3)))
    sent(client)
    assert any(
        len(y[changed(before, after)].unique()) == CLASSES for before, after, y, _ in client.seen
    )


@pytest.mark.parametrize("most", [0, 1, 4])
def test_at_most_max_steps_batches_beside_the_warm_up_are_hardened_and_spread(most):
    client = Witness(1, pictures(120, 1), context(replace(QUICK, max_steps=most)))
    sent(client)
    later = [changed(b, a).any().item() for b, a, _, warm in client.seen if not warm]
    assert len(later) == 20 - CLASSES
    assert sum(later) <= most
    if most == 4:
        assert sum(later) >= 3
        assert any(later[len(later) // 2 :])


def test_a_client_rebuilt_from_its_state_goes_on_to_the_bit():
    data = pictures(40, 1)
    kept = FlipClient(4, data, context())
    first = sent(kept, 1)
    state = {name: tensor.clone() for name, tensor in kept.state_dict().items()}
    rebuilt = FlipClient(4, data, context())
    rebuilt.load_state_dict(state)
    start = ModelState(first, torch.empty(0))
    assert torch.equal(sent(kept, 2, start), sent(rebuilt, 2, start))
    for name, tensor in kept.state_dict().items():
        assert torch.equal(tensor, rebuilt.state_dict()[name]), name
    fresh = FlipClient(4, data, context())
    fresh.load_state_dict({})
    assert not torch.equal(sent(fresh, 2, start), sent(rebuilt, 2, start))


def test_taking_a_state_back_does_not_tie_two_clients_together():
    client = FlipClient(4, pictures(40, 1), context())
    sent(client)
    state = client.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    other = FlipClient(4, pictures(40, 1), context())
    other.load_state_dict(state)
    sent(other, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_a_warm_up_cut_short_by_the_end_of_a_round_goes_on_in_the_next():
    """In the published code it never does, and the growth stays infinite."""
    client = FlipClient(0, pictures(12, 1), context(epochs=1))
    for round in (1, 2, 3):
        assert client.history is None or client.history.warmed == round - 1
        sent(client, round)
    assert client.history is not None
    assert client.history.warmed == CLASSES
    assert client.history.growth.max() <= 1


@pytest.mark.parametrize(("samples", "classes"), [(1, 1), (2, 2), (24, 1), (24, 2), (0, 1)])
def test_clients_that_lack_classes_or_samples_train(samples, classes):
    client = FlipClient(1, pictures(samples, 1, classes), context())
    for round in (1, 2):
        assert sent(client, round).isfinite().all()
    if client.history is not None:
        assert all(source < classes for source, _ in client.history.triggers)


def test_two_numbers_of_steps_are_enough():
    args = replace(QUICK, trigger_steps=(3, 3), max_steps=1)
    assert sent(FlipClient(1, pictures(40, 1), context(args))).isfinite().all()


def test_hardening_takes_a_backdoor_out_that_plain_training_keeps():
    clean = pictures(300, 1)
    bad = clean.x.clone()
    bad[:, :, 0, 0] = 255
    labels = torch.where(clean.y == SOURCE, TARGET, clean.y)
    x, y = normalise(torch.cat([clean.x, bad])), torch.cat([clean.y, labels])
    model, spec = new_model(), context().spec
    recipe = context().recipe
    fit(model, ((x[rows], y[rows]) for rows in shuffled(len(y), 32, 6, generator())), recipe)
    start = spec.flatten(model)

    test = pictures(150, 2)
    victims = test.x[test.y == SOURCE]
    victims[:, :, 0, 0] = 255

    def scores(weights: Tensor) -> tuple[float, float]:
        """Return attack success and clean accuracy."""
        spec.load(model, ModelState(weights, torch.empty(0)))
        asr = (logits(model, normalise(victims)).argmax(1) == TARGET).double().mean().item()
        right = logits(model, normalise(test.x)).argmax(1) == test.y
        return asr, right.double().mean().item()

    own = pictures(120, 3)
    slow = {"lr": 0.01}
    assert scores(start.weights)[0] > 0.9
    plain = scores(sent(Client(1, own, context(**slow)), 1, start))
    hardened = scores(
        sent(
            FlipClient(1, own, context(replace(QUICK, trigger_steps=(60, 60, 30)), **slow)),
            1,
            start,
        )
    )
    assert hardened[0] < 0.5 * plain[0]
    assert hardened[1] > plain[1] - 0.05
