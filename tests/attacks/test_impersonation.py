import pytest
import torch
from torch import nn

from entity.attacks.badnets import BadNets
from entity.attacks.impersonation import (
    Impersonation,
    ImpersonationArgs,
    chosen_honest,
    head_slots,
    impersonate,
)
from entity.client.attacker import NoArgs
from entity.client.collusion import Collusion
from entity.layout import ParamSpec
from entity.models import MODELS, head_of
from entity.seeding import Seeds
from entity.updates import Updates


def _round(model: nn.Module, rows: torch.Tensor) -> Updates:
    spec = ParamSpec.of(model)
    start = spec.flatten(model)
    n = len(rows)
    buffers = start.buffers.repeat(n, 1)
    sizes = torch.full((n,), 10)
    return Updates(1, tuple(range(n)), start.weights + rows, buffers, sizes, *start, spec=spec)


def test_with_update_an_honest_clients_update_is_added_to_the_push(make_round):
    updates = make_round([[1.0, 0], [0, 2], [5, 5], [0, 1]])
    faces = chosen_honest([2, 3], [0, 1], None, Seeds(0))
    assert sorted(faces.values()) == [0, 1]
    impersonate(updates, [2, 3], None, None, Seeds(0))
    honest = {0: [1, 0], 1: [0, 2]}
    for who, push in ((2, [5, 5]), (3, [0, 1])):
        expected = [a + b for a, b in zip(honest[faces[who]], push, strict=True)]
        assert updates.deltas[who].tolist() == expected
    assert updates.deltas[:2].tolist() == [[1, 0], [0, 2]]


def test_the_push_is_the_poisoned_training_less_the_clean_one(make_bench):
    bench = make_bench(Impersonation, ImpersonationArgs())
    push = bench.fit().weights - bench.start.weights
    poisoned = make_bench(BadNets, NoArgs()).fit().weights
    torch.testing.assert_close(push, poisoned - bench.honest().weights, atol=1e-6, rtol=0)


class HeadFirst(nn.Module):
    """A user's own model, whose output layer is not its last parameter."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.features = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(self.features(x))


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)), slice(9, 17)),
        (HeadFirst(), slice(0, 8)),
    ],
)
def test_with_head_the_output_layer_alone_is_an_honest_clients(model, head):
    rows = torch.randn(3, 17, generator=torch.Generator().manual_seed(1))
    updates = _round(model, rows)
    before = updates.weights.clone()
    args = ImpersonationArgs(impersonated="head")
    collusion = Collusion(args, Seeds(4), None, {}, None, lambda: model)  # pyright: ignore
    assert Impersonation.conspire(updates, [1], collusion) == {}
    face = chosen_honest([1], [0, 2], None, Seeds(4))[1]
    expected = before.clone()
    expected[1, head] = before[face, head]  # 3 x 2 weights and 2 biases
    assert torch.equal(updates.weights, expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_head_of_the_shipped_models_is_their_last_matrix_with_its_bias(name):
    with torch.device("meta"):  # names and shapes alone
        model = MODELS[name].make(3, 32, 10)
    spec = ParamSpec.of(model)
    assert [slot.name for slot in head_slots(spec, head_of(model)[0])] == [
        slot.name for slot in spec.parameters[-2:]
    ]


def test_everybody_keeps_its_face_whoever_else_comes():
    whole = chosen_honest([10, 11, 12], list(range(8)), None, Seeds(1))
    assert len(set(whole.values())) == 3
    less = [c for c in range(8) if c not in whole.values()] + list(whole.values())
    assert chosen_honest([12, 10, 11], less, None, Seeds(1)) == whole
    assert chosen_honest([10, 11, 12], list(range(8)), None, Seeds(2)) != whole


def test_with_fewer_honest_clients_than_attackers_faces_are_shared():
    assert set(chosen_honest([1, 2, 3], [7], None, Seeds(0)).values()) == {7}


@pytest.mark.parametrize("shared", [1, 2, 50])
def test_shared_faces_are_the_same_for_all_and_dealt_out_in_turn(shared):
    faces = chosen_honest([1, 2, 3, 4], [5, 6, 7], shared, Seeds(0))
    assert len(set(faces.values())) == min(shared, 3)


def test_without_an_honest_client_nothing_happens(make_round):
    updates = make_round([[1.0], [2.0]])
    impersonate(updates, [0, 1], None, None, Seeds(0))
    assert updates.deltas.flatten().tolist() == [1, 2]


def test_nobody_puts_on_the_face_of_a_client_that_diverged(make_round):
    updates = make_round([[float("nan"), 1.0], [5.0, 6.0], [1.0, 0.0], [0.0, 1.0]])
    impersonate(updates, [2, 3], None, None, Seeds(0))
    assert updates.deltas[2:].tolist() == [[6, 6], [5, 7]]
