"""Inside a local epoch nothing is read back from the device, and little is sent there.

The device is PyTorch's `meta`, whose tensors have no values: whatever would make a processor wait
for a GPU (`item`, `cpu`, `tolist`, `nonzero`, a truth value, a boolean index) is an error there.
"""

import pytest
import torch
from attackers import tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

import entity.sgd
from entity.attacks import ATTACKS
from entity.attacks.pgd import _shorten, project
from entity.client import Broadcast, Client, LocalData, TrainingContext
from entity.client.attacker import Plan
from entity.client.poison import NoPoisonArgs
from entity.config.fields import AttackConfig
from entity.dataset import Augmentation
from entity.layout import ModelState, ParamSpec
from entity.poisons.pixel import Pixel
from entity.seeding import Seeds
from entity.training import Recipe

META = torch.device("meta")
IN_SIGHT = {"covered", "disguised", "in_sight"}
"""They solve systems on the CPU."""
AUGMENTATION = Augmentation(pad=2, flip=True, degrees=15)


class Transfers(TorchDispatchMode):
    """Counts the tensors that are sent from the CPU to the device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        copies = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        if copies and out.device == META:
            source = args[1] if function is torch.ops.aten.copy_.default else args[0]
            self.count += source.device != META
        return out


@pytest.fixture(autouse=True)
def _plain_sgd(monkeypatch):
    """The fused kernel is for real devices."""
    sgd, function = torch.optim.SGD, entity.sgd.sgd
    monkeypatch.setattr(torch.optim, "SGD", lambda *args, fused=None, **more: sgd(*args, **more))
    monkeypatch.setattr(entity.sgd, "sgd", lambda *args, fused, **more: function(*args, **more))


def data_of(n):
    rng = torch.Generator().manual_seed(1)
    x = torch.randint(256, (n, 1, 8, 8), generator=rng).to(torch.uint8)
    return LocalData(x, torch.arange(n) % 3, torch.zeros(n, dtype=torch.bool))


def scene(epochs=1):
    model = tiny_model()
    spec = ParamSpec.of(model)
    state = spec.flatten(model)
    recipe = Recipe(0.01, 0.9, 5e-4, 8, epochs)
    context = TrainingContext(recipe, AUGMENTATION, Seeds(1), spec, META)
    return model.to(META), Broadcast(2, state, state.weights + 1), context


def transfers(n, epochs=1):
    model, broadcast, context = scene(epochs)
    with Transfers() as seen:
        Client(1, data_of(n), context).fit(model, broadcast)
    return seen.count


def test_a_local_epoch_reads_nothing_back_and_sends_no_more_for_more_steps():
    few, many = transfers(16), transfers(80)
    assert few == many <= 8  # pixels, labels, rows, draws and marks: for 2 steps as for 10
    assert transfers(16, epochs=3) == few


def attacker(name, n, **changes):
    kind = ATTACKS[name]
    attack = AttackConfig(
        type=name, DPR=1.0, victim_class=0, target_class=1, args=kind.hyperparameters(**changes)
    )
    model, broadcast, context = scene()
    data = data_of(n)
    targets = (data.y == 0).nonzero().flatten()
    plan = Plan(attack, Pixel(attack, NoPoisonArgs(), 1, 8), 0, targets)
    return kind(1, data, context, plan), model, broadcast


@pytest.mark.parametrize("name", sorted(ATTACKS.keys() - IN_SIGHT))
def test_an_attackers_training_reads_nothing_back(name):
    counts = []
    for n in (16, 40):
        client, model, broadcast = attacker(name, n)
        with Transfers() as seen:
            client.corrupt(model, broadcast)
        counts.append(seen.count)
    assert counts[0] == counts[1]


@pytest.mark.parametrize("radius", [0.5, 5.0, 50.0])
def test_a_projection_that_reads_nothing_is_that_of_the_cpu(radius):
    centre = [torch.tensor([3.0, 4.0]), torch.tensor([[1.0]])]
    point = [torch.tensor([0.0, 8.0]), torch.tensor([[13.0]])]  # 13 from the centre
    expected = [p.clone() for p in point]
    project(expected, centre, radius)
    moves = [p - c for p, c in zip(point, centre, strict=True)]
    norm = torch.tensor(13.0)
    before = [p.clone() for p in point]
    _shorten(point, centre, moves, radius / norm, only=norm > radius)
    for found, wanted, old in zip(point, expected, before, strict=True):
        torch.testing.assert_close(found, wanted)
        assert torch.equal(found, old) == (radius > 13)


def test_the_search_finds_a_value_that_is_read_back():
    class Reads(Client):
        def local_loss(self, model, x, y):
            loss = super().local_loss(model, x, y)
            return loss * (1 if loss > 0 else 2)

    model, broadcast, context = scene()
    with pytest.raises(RuntimeError, match="meta"):
        Reads(1, data_of(16), context).fit(model, broadcast)


def test_the_global_model_is_sent_as_one_vector_for_each_kind():
    model, broadcast, context = scene()
    with Transfers() as seen:
        context.spec.load(model, broadcast.state)
    assert seen.count == 2  # weights and buffers, of 8 tensors


def test_a_model_comes_back_as_one_vector_for_each_kind():
    model = tiny_model()
    spec = ParamSpec.of(model)
    elsewhere = [torch.empty(n, device=META) for n in (spec.num_parameters, spec.num_buffers)]
    with Transfers() as seen:
        spec.flatten_into(model, ModelState(*elsewhere))
    assert seen.count == 2
    joined = torch.cat([tensor.detach().flatten() for tensor in model.parameters()])
    assert torch.equal(spec.flatten(model).weights, joined)
