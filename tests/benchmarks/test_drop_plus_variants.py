"""DROP+ with parts replaced: each variant differs in that part alone, and works."""

import sys
from pathlib import Path

import pytest
import torch
from colluders import groups_of
from torch import nn

from entity.defenses.drop_plus import DropPlus, DropPlusArgs
from entity.models import Classifier
from entity.server import CleanData

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
CLIENTS, BAD = 10, (1, 4, 6)


@pytest.fixture
def variants(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import drop_plus_variants

    yield drop_plus_variants
    del sys.modules["drop_plus_variants"]


@pytest.fixture
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU())
        return Classifier(body, nn.Linear(12, 10))


@pytest.fixture
def clean():
    x = torch.rand(300, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return CleanData(x, torch.arange(300) % 10)


@pytest.fixture
def rounds(model, make_updates):
    """Six rounds of noise, in which three clients push one way."""
    size = sum(parameter.numel() for parameter in model.parameters())
    push = torch.randn(size, generator=torch.Generator().manual_seed(9))

    def made(number):
        rng = torch.Generator().manual_seed(number)
        rows = torch.randn(CLIENTS, size, generator=rng) / 100
        rows[list(BAD)] += push / 100
        return make_updates(rows, model=model, round=number)

    return [made(number) for number in range(1, 7)]


def test_without_a_change_it_is_the_method(variants, model, clean, rounds, make_resources):
    def last(server):
        return [server.aggregate(updates) for updates in rounds][-1]

    plain, same = (
        last(cls(args, make_resources(model, clean=clean, classes=10, image=(1, 8))))
        for cls, args in (
            (DropPlus, DropPlusArgs()),
            (variants.DropPlusVariant, variants.VariantArgs()),
        )
    )
    assert torch.equal(plain.weights, same.weights)
    assert plain.diagnostics == same.diagnostics


@pytest.mark.parametrize(
    "change",
    [
        {"describes": "weights"},
        {"describes": "head"},
        {"describes": "features"},
        {"describes": "answers"},
        {"centred": False},
        {"linkage": "ward"},
        {"looks_again": False},
        {"images": "upside down"},
        {"images": "noise"},
    ],
    ids=str,
)
def test_each_variant_finds_who_pushes_plainly(
    variants, model, clean, rounds, make_resources, change
):
    resources = make_resources(model, clean=clean, classes=10, image=(1, 8))
    server = variants.DropPlusVariant(variants.VariantArgs(**change), resources)
    for updates in rounds:
        begun = updates.global_weights.clone()
        answer = server.aggregate(updates)
        assert torch.equal(updates.global_weights, begun)
    found = {v.client for v in answer.verdicts if not v.accepted}
    assert found == (set() if change == {"centred": False} else set(BAD))  # all share the mean
    plain = DropPlus(DropPlusArgs(), resources)
    shown = [plain.aggregate(updates) for updates in rounds][-1].diagnostics
    alike = change in ({"looks_again": False}, {"linkage": "ward"})  # two groups, far apart
    assert (answer.diagnostics == shown) == alike


def test_the_linkage_is_the_one_that_is_asked_for(variants, model, clean, make_resources):
    """A chain: single linkage cuts off its far pair, Ward's cuts it elsewhere."""
    at = torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.76])
    sums = {client: torch.stack([a.cos(), a.sin()]) for client, a in enumerate(at)}
    assert groups_of(sums, method="single").smaller == {7, 8}
    assert groups_of(sums, method="ward").smaller == {0, 1, 2}
    args = variants.VariantArgs(linkage="single")
    resources = make_resources(model, clean=clean, classes=10, image=(1, 8))
    server = variants.DropPlusVariant(args, resources)
    assert {look.method for look in server.search.looks.values()} == {"single"}
