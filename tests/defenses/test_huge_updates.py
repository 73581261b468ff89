"""One client of any finite magnitude moves no defense that claims robustness farther than this.

MULTIPLE is of the longest honest update, of the distance between the aggregate of eleven honest
clients with a hostile one and that of the same eleven with a twelfth honest one.
"""

import json
from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.seeding import global_stream
from entity.server import CleanData, admit
from entity.updates import Aggregation

MULTIPLE = 2.0
HONEST = 11
MAGNITUDES = [1e3, 1e10, 1e16, 1.8e19, 1e30, 3e38]
BETWEEN = (1e10, 1e16, 1e30)
SETTINGS: dict[str, dict[str, Any]] = {
    "backdoor_indicator": {"num_indicator": 20, "epochs": 2},
    "crowdguard": {"voters": 3, "samples": 4},
    "deepsight": {"num_samples": 50},
    "drop": {"K": -1},
    "flare": {"num_seed": 20},
    "fltrust": {"num_root": 20},
    "finetuning": {"epochs": 0},
    "rflbat": {"references": 3},
    "snowball": {"vt": 0.2},
}
SHAPES = {
    "noise": "every parameter, with a sign of its own",
    "aligned": "the honest mean update, lengthened",
    "reversed": "the same, turned round",
    "one parameter": "the first weight of the body alone",
    "head": "the output layer, below it the honest mean update",
}
EVERY = tuple(SHAPES)
CANNOT: dict[str, tuple[tuple[str, ...], str]] = {
    "undefended": (EVERY, "FedAvg is a mean"),
    "finetuning": (EVERY, "FedAvg before it tunes"),
    "random_aggregation": (EVERY, "a mean with random weights"),
    "flip": (EVERY, "the server averages; the defense is in the clients"),
    "rlr": (EVERY, "reverses signs and leaves lengths to other rules"),
    "foolsgold": (EVERY[2:] + EVERY[:1], "is against many alike, and a lone lie is like none"),
    "backdoor_indicator": (EVERY, "judges by what is left of its own backdoor, not by lengths"),
    "crfl": (EVERY, "bounds the norm of the model, not its distance from the honest"),
    "freqfed": (("aligned",), "judges the direction alone"),
    "flare": (("head",), "judges what enters the output layer alone"),
}
"""Defenses that by their papers cannot, the shapes of which that is true, and why."""
WITHOUT: dict[str, Tensor] = {}
"""What each defense makes of honest clients alone, once it is known."""
VOTES = ("flare", "backdoor_indicator")
"""Defenses in which a decoy, too, has a say, or is averaged in a first round that nobody judges."""
PAIRS = [(name, shape) for name in DEFENSES for shape in SHAPES]
EXCUSED = [pair for pair in PAIRS if pair[1] in CANNOT.get(pair[0], ((), ""))[0]]
CLAIMED = [pair for pair in PAIRS if pair not in EXCUSED]


def network() -> Classifier:
    with global_stream(torch.Generator().manual_seed(1)):
        body = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 8))
        return Classifier(body, nn.Linear(8, 3))


def clean_images() -> CleanData:
    rng = torch.Generator().manual_seed(5)
    return CleanData(torch.rand(30, 1, 4, 4, generator=rng) * 2 - 1, torch.arange(30) % 3)


def honest_updates() -> Tensor:
    size = ParamSpec.of(network()).num_parameters
    rng = torch.Generator().manual_seed(3)
    common = 0.02 * torch.randn(size, generator=rng)
    return common + 0.01 * torch.randn(HONEST + 1, size, generator=rng)


def lie(shape: str, magnitude: float, honest: Tensor) -> Tensor:
    """Return a hostile update (P,) whose largest entry is `magnitude`."""
    mean = honest.mean(0)
    if shape in ("aligned", "reversed"):
        way = mean / mean.abs().max()
        return magnitude * (way if shape == "aligned" else -way)
    way = torch.randn(len(mean), generator=torch.Generator().manual_seed(4)).sign()
    if shape == "one parameter":
        way[1:] = 0
    if shape == "head":
        body = ParamSpec.of(network()).parameters[-2].start
        return torch.cat([mean[:body], magnitude * way[body:]])
    return magnitude * way


def judged(name: str, rows: list[Tensor], make_updates: Any, make_resources: Any) -> Aggregation:
    """Return the second answer to two equal rounds of the given updates."""
    model, clean = network(), clean_images()
    resources = make_resources(model, clean=clean, classes=3)
    entry = DEFENSES[name]
    server = entry(load(entry.hyperparameters, SETTINGS.get(name, {})), resources)
    start = ParamSpec.of(model).flatten(model).weights
    for number in (1, 2):
        updates = make_updates(torch.stack(rows), model=model, origin=start, round=number)
        answer = admit(server, updates)
    return answer


def shift(name: str, shape: str, magnitude: float, *fixtures: Any) -> float:
    """Return how far the lie moves the aggregate, in lengths of the longest honest update."""
    honest = honest_updates()
    if name not in WITHOUT:
        WITHOUT[name] = judged(name, [*honest], *fixtures).weights
    without = WITHOUT[name]
    attacked = judged(name, [*honest[:-1], lie(shape, magnitude, honest[:-1])], *fixtures).weights
    moved = (attacked.double() - without.double()).norm()
    return float(moved / honest.double().norm(dim=1).max())


@pytest.mark.parametrize(
    "magnitude",
    [pytest.param(m, marks=pytest.mark.slow) if m in BETWEEN else m for m in MAGNITUDES],
)
@pytest.mark.parametrize(("name", "shape"), CLAIMED)
def test_one_client_of_any_magnitude_moves_the_aggregate_little(
    name, shape, magnitude, make_updates, make_resources
):
    assert shift(name, shape, magnitude, make_updates, make_resources) <= MULTIPLE


@pytest.mark.parametrize("name", [name for name in DEFENSES if name not in VOTES])
def test_what_a_defense_thinks_of_the_others_does_not_depend_on_how_far_a_decoy_is(
    name, make_updates, make_resources
):
    """Four colluders beside the decoy, nearer to one another than the honest are."""
    rows = honest_updates()
    rows[7:-1] = rows[7] * 0.2 + 0.2 + 1e-4 * rows[7:-1]

    def thought(magnitude: float) -> list[bool]:
        decoy = lie("noise", magnitude, rows)
        found = judged(name, [decoy, *rows[:-1]], make_updates, make_resources)
        return [verdict.accepted for verdict in found.verdicts]

    expected = thought(1e3)
    assert [thought(magnitude) for magnitude in MAGNITUDES] == [expected] * len(MAGNITUDES)


@pytest.mark.parametrize(("name", "shape"), EXCUSED)
def test_those_that_by_their_papers_cannot_are_moved(name, shape, make_updates, make_resources):
    found = [shift(name, shape, m, make_updates, make_resources) for m in MAGNITUDES]
    assert max(found) > MULTIPLE


@pytest.mark.parametrize("magnitude", [pytest.param(1e20, marks=pytest.mark.slow), 3.3e38])
@pytest.mark.parametrize("name", DEFENSES)
def test_a_huge_majority_in_two_rounds_costs_those_rounds_alone(
    name, magnitude, make_updates, make_resources
):
    """No round is ended by it, then or later, and what is remembered can be gone on with."""
    model, clean = network(), clean_images()
    entry = DEFENSES[name]
    args = load(entry.hyperparameters, SETTINGS.get(name, {}))
    server = entry(args, make_resources(model, clean=clean, classes=3))
    start = ParamSpec.of(model).flatten(model).weights
    for number in range(1, 8):
        rows = honest_updates() + 0.01 * number
        if number in (2, 3):
            rows[:7] = magnitude * rows[:7].sign()
        updates = make_updates(rows, model=model, origin=start, round=number)
        answer = admit(server, updates)
        assert answer.state.weights.isfinite().all(), number
        json.dumps(answer.diagnostics, allow_nan=False)
        assert not list(not_finite(server.snapshot())), number
    again = entry(args, make_resources(model, clean=clean, classes=3))
    again.restore(server.snapshot())
    updates = make_updates(honest_updates(), model=model, origin=start, round=8)
    assert torch.equal(admit(again, updates).weights, admit(server, updates).weights)


def not_finite(state: Any, where: str = "") -> Iterator[str]:
    """Yield where a state has numbers that are not finite."""
    if isinstance(state, Tensor):
        if state.is_floating_point() and not state.isfinite().all():
            yield where
    elif isinstance(state, float):
        if not isfinite(state):
            yield where
    elif isinstance(state, Mapping):
        for key, each in state.items():
            yield from not_finite(each, f"{where}.{key}")
    elif isinstance(state, (list, tuple)):
        for place, each in enumerate(state):
            yield from not_finite(each, f"{where}[{place}]")
