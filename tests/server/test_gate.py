import math
from dataclasses import replace

import pytest
import torch
from colluders import normal
from torch import nn

from entity.defenses import DEFENSES, Droplet, DropletArgs, Undefended, UndefendedArgs
from entity.defenses.crfl import Crfl, CrflArgs
from entity.layout import BLOCK, ParamSpec
from entity.models import Classifier
from entity.server import CleanData, Stream, admit
from entity.server.certificate import smoothed_votes
from entity.server.optimiser import OptimiserArgs
from entity.updates import Aggregation


class Spy(Undefended):
    """FedAvg that remembers whom it was shown."""

    def aggregate(self, updates):
        self.shown = updates.client_ids
        answer = super().aggregate(updates)
        return replace(answer, diagnostics={"own": 7.0}, artifacts={"tree": torch.ones(1)})


@pytest.fixture
def spy(make_resources):
    def make(updates):
        server = Spy(UndefendedArgs(), make_resources(updates))
        server.shown = None
        return server

    return make


def test_a_clean_round_passes_unchanged(make_updates, spy):
    updates = make_updates([(1, 0), (0, 3)], ids=[5, 2])
    server = spy(updates)
    answer = admit(server, updates)
    assert server.shown == (5, 2)
    assert answer.diagnostics == {"own": 7.0}
    assert [v.accepted for v in answer.verdicts] == [True, True]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", ["weights", "buffers"])
def test_an_update_that_is_not_finite_is_refused_and_the_rest_goes_on(
    make_updates, spy, value, place
):
    updates = make_updates(
        [(1, 0), (5, 5), (0, 3)], ids=[5, 2, 9], buffers=[[1.0], [2.0], [3.0]], origin=[0, 0]
    )
    getattr(updates, place)[1, -1] = value
    server = spy(updates)
    answer = admit(server, updates)
    assert server.shown == (5, 9)
    assert answer.weights.tolist() == [0.5, 1.5]
    assert answer.buffers.tolist() == [2.0]
    assert [(v.client, v.accepted, v.weight, v.reason) for v in answer.verdicts] == [
        (5, True, 0.5, ""),
        (2, False, 0.0, "nonfinite update"),
        (9, True, 0.5, ""),
    ]
    assert answer.diagnostics == {"own": 7.0, "gate_refused": 1.0}
    assert set(answer.artifacts) == {"tree"}
    assert set(answer.seconds) == {"average"}


def test_every_column_is_looked_at(make_updates, spy):
    updates = make_updates(torch.zeros(2, 2 * BLOCK + 3))
    updates.weights[0, -1] = math.nan
    server = spy(updates)
    admit(server, updates)
    assert server.shown == (1,)


def test_the_largest_finite_numbers_are_not_refused(make_updates, spy):
    updates = make_updates([(3e38, -3e38), (1, 1)])
    server = spy(updates)
    admit(server, updates)
    assert server.shown == (0, 1)


def test_of_a_repeated_id_only_the_first_counts(make_updates, spy):
    updates = make_updates([(2,), (50,), (4,), (50,)], ids=[1, 1, 3, 1], origin=[0])
    answer = admit(spy(updates), updates)
    assert answer.weights.tolist() == [3.0]
    assert [v.accepted for v in answer.verdicts] == [True, False, True, False]
    assert {v.reason for v in answer.verdicts if not v.accepted} == {"repeated client id"}
    assert answer.diagnostics["gate_refused"] == 2


def test_numbers_and_texts_are_different_ids(make_updates, spy):
    updates = make_updates([(2,), (4,)], ids=[1, "1"])
    server = spy(updates)
    admit(server, updates)
    assert server.shown == (1, "1")


def test_with_nobody_left_the_model_stays_and_the_server_is_not_asked(make_updates, spy):
    updates = make_updates([(math.nan,), (math.inf,)], ids=[4, 2], buffers=[[1.0], [1.0]])
    server = spy(updates)
    answer = admit(server, updates)
    assert isinstance(answer, Aggregation)
    assert server.shown is None
    assert torch.equal(answer.weights, updates.global_weights)
    assert torch.equal(answer.buffers, updates.global_buffers)
    assert [(v.client, v.accepted) for v in answer.verdicts] == [(4, False), (2, False)]


def test_a_refusal_at_the_gate_costs_no_penalty_points(make_updates, make_resources):
    updates = make_updates([0.0, 0.1, math.nan, 0.2, 9.0], ids=[10, 11, 12, 13, 14])
    server = Droplet(DropletArgs(), make_resources(updates))
    answer = admit(server, updates)
    assert [v.accepted for v in answer.verdicts] == [True, True, False, True, False]
    assert server.activity.points(12) == 0
    assert server.activity.points(14) == 1
    assert answer.verdicts[2].score is None


def test_finite_numbers_pass_whatever_their_sum(make_updates, spy):
    """The sum of the first overflows; infinities of both signs have none, and are refused."""
    huge = torch.finfo(torch.float32).max
    rows = [(huge, huge), (math.inf, -math.inf), (-huge, -huge)]
    updates = make_updates(rows, ids=[5, 2, 9], origin=[0, 0])
    server = spy(updates)
    admit(server, updates)
    assert server.shown == (5, 9)


def test_a_round_without_a_sound_update_says_that_the_global_model_stays(make_updates, spy):
    updates = make_updates([(math.nan, 0), (0, math.inf)])
    answer = admit(spy(updates), updates)
    assert answer.diagnostics == {"kept_global": 1.0, "gate_refused": 2.0}
    assert torch.equal(answer.weights, updates.global_weights)


NOISY = {
    "crfl": {"sigma": 0.5},
    "flame": {"noise_sigma": 0.5},
    "norm_clipping": {"sigma": 0.5},
    "undefended": {},
    "weak_dp": {"sigma": 0.5},
}


@pytest.mark.parametrize("optimiser", [None, "fedadam"])
@pytest.mark.parametrize("name", NOISY)
def test_what_is_frozen_stays_whoever_moves_it(make_updates, make_resources, name, optimiser):
    """A noise that no client trains away, a clip of all parameters, a client that sends others."""
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    spec = ParamSpec.of(model)
    origin = spec.flatten(model).weights
    rows = torch.randn(5, spec.num_parameters, generator=torch.Generator().manual_seed(0))
    updates = make_updates(rows, model=model, origin=origin)
    entry = DEFENSES[name]
    changes = {} if optimiser is None else {"optimiser": OptimiserArgs(optimiser)}
    server = entry(entry.hyperparameters(**NOISY[name]), make_resources(model, **changes))
    released = admit(server, updates).weights
    frozen = slice(0, 20)
    assert torch.equal(released[frozen], origin[frozen])
    assert (released[20:] != origin[20:]).all()


def test_frozen_parameters_are_outside_of_crfls_norm_and_of_its_votes(make_updates, make_resources):
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    with torch.no_grad():
        model[0].weight.fill_(100.0)
    origin = ParamSpec.of(model).flatten(model).weights
    updates = make_updates(torch.zeros(3, len(origin)), model=model, origin=origin)
    server = Crfl(CrflArgs(sigma=0.0), make_resources(model))
    answer = admit(server, updates)
    torch.testing.assert_close(answer.weights, origin)
    assert answer.diagnostics["model_norm"] == pytest.approx(float(origin[20:].norm()))
    plain = nn.Linear(4, 2).requires_grad_(False)
    plain.register_parameter("unused", nn.Parameter(torch.zeros(3)))
    x, rng = torch.randn(6, 4), torch.Generator().manual_seed(0)
    votes = smoothed_votes(plain, x, 2, 100.0, 8, rng)  # noise of that would change their answers
    assert votes.argmax(1).tolist() == plain(x).argmax(1).tolist()
    assert votes.max(1).values.tolist() == [8] * 6


@pytest.mark.parametrize("streamed", [False, True])
def test_no_defense_sees_what_a_client_sends_for_frozen_parameters(
    make_updates, make_resources, streamed
):
    """Regression: clients were judged by, and models tuned on, what is never released."""
    model = nn.Sequential(nn.Linear(4, 4).requires_grad_(False), nn.Linear(4, 2))
    spec = ParamSpec.of(model)
    origin = spec.flatten(model).weights
    rows = torch.randn(3, spec.num_parameters, generator=torch.Generator().manual_seed(0))
    updates = make_updates(rows, model=model, origin=origin)
    before = updates.weights.clone()
    clean = rows.clone()
    clean[:, :20] = 0
    seen = []

    class Looks(Undefended):
        def aggregate(self, updates):
            seen.append(updates)
            return super().aggregate(updates)

        def answer_of(self, stream):
            for row in range(3):
                stream.accept(row, updates.state(row), 1)
            return stream.finish()

    server = Looks(UndefendedArgs(), make_resources(model))
    answer = server.answer_of(Stream(server, 1, updates.global_state)) if streamed else None
    answer = answer or admit(server, updates)
    assert torch.equal(seen[0].weights[:, :20], origin[:20].expand(len(seen[0]), -1))
    expected = origin + clean.mean(0)
    torch.testing.assert_close(answer.weights, expected)
    assert torch.equal(updates.weights, before)  # what was sent is not changed
    if not streamed:
        assert torch.allclose(seen[0].norms.float(), clean.norm(dim=1), rtol=1e-4)


@pytest.mark.parametrize("name", ["crfl", "flame", "norm_clipping", "weak_dp"])
def test_statistics_are_measured_again_on_the_frozen_weights_that_are_released(
    make_updates, make_resources, name
):
    """Regression: on those that a server's noise had moved, and that the gate put back later."""
    body = [nn.Linear(16, 8), nn.BatchNorm1d(8)]
    for layer in body:
        layer.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Classifier(nn.Sequential(nn.Flatten(), *body), nn.Linear(8, 3))
    origin = ParamSpec.of(model).flatten(model).weights
    clean = CleanData(normal(60, 1, 4, 4), torch.arange(60) % 3)
    deltas = normal(4, len(origin), seed=2)
    deltas[:, : sum(weight.numel() for layer in body for weight in layer.parameters())] = 0
    updates = make_updates(deltas, model=model, origin=origin)
    made = make_resources(model, classes=3, clean=clean, bn_policy="recalibrate", rounds=9)
    plain = Undefended(UndefendedArgs(), made)
    entry = DEFENSES[name]
    noise = {"flame": {"noise_sigma": 0.5}}.get(name, {"sigma": 0.5})
    server = entry(entry.hyperparameters(**noise), made)
    assert torch.equal(admit(server, updates).buffers, admit(plain, updates).buffers)
