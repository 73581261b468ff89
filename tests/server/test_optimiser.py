"""The server's optimisers against Flower's, PyTorch's SGD, and rounds computed by hand."""

import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses import DEFENSES
from entity.defenses.crfl import Crfl, CrflArgs
from entity.defenses.median import Median, MedianArgs
from entity.defenses.undefended import Undefended, UndefendedArgs
from entity.layout import ParamSpec
from entity.record.packing import pack, unpack
from entity.server import OptimiserArgs, Stream, admit
from entity.server.contract import CleanData
from entity.updates import Aggregation, verdicts

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
flower = pytest.importorskip("flwr.serverapp.strategy")
from flwr.app import Array, ArrayRecord, MetricRecord  # noqa: E402

ROUNDS = 5
SIZE = 6


def aggregates(seed=0, rounds=ROUNDS):
    """Return what a defense adds to a model of zeros, round by round: some coordinates never."""
    moves = np.random.default_rng(seed).normal(size=(rounds, SIZE)).astype(np.float32)
    moves[:, 2] = 0
    return moves


def ours(name, moves, make_updates, make_resources, *, rate=0.1, defense=Median, **settings):
    """Return the model (rounds, SIZE) after each round of three clients who agree."""
    start = torch.zeros(SIZE)
    server, models = None, []
    for number, move in enumerate(moves, start=1):
        updates = make_updates(np.tile(move, (3, 1)), origin=start, round=number)
        if server is None:
            args = OptimiserArgs(name, **settings)
            resources = make_resources(updates, server_lr=rate, optimiser=args)
            server = defense(DEFENSES[_name(defense)].hyperparameters(), resources)
        start = admit(server, updates).weights
        models.append(start.numpy())
    return np.stack(models)


def _name(defense):
    return next(name for name, entry in DEFENSES.items() if entry is defense)


def flowers(strategy, moves, monkeypatch, *, number=None):
    """Return the models of one of Flower's own strategies, fed with the same aggregates."""
    current, models = np.zeros(SIZE, np.float32), []
    for turn, move in enumerate(moves, start=1):
        mean = ArrayRecord({"w": Array(current + move)})
        monkeypatch.setattr(
            flower.FedAvg, "aggregate_train", lambda *_, mean=mean: (mean, MetricRecord())
        )
        strategy.current_arrays = (
            ArrayRecord({"w": Array(current)})
            if isinstance(strategy, flower.FedAvgM)
            else {"w": current}
        )
        arrays, _ = strategy.aggregate_train(number or turn, [])
        current = arrays["w"].numpy().astype(np.float32)
        models.append(current)
    return np.stack(models)


# Against other implementations


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
def test_fedavgm_is_flowers(beta, make_updates, make_resources, monkeypatch):
    moves = aggregates()
    theirs = flower.FedAvgM(server_learning_rate=0.7, server_momentum=beta)
    expected = flowers(theirs, moves, monkeypatch)
    found = ours("fedavgm", moves, make_updates, make_resources, rate=0.7, beta1=beta)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "entry"), [("fedadam", "FedAdam"), ("fedyogi", "FedYogi")])
@pytest.mark.parametrize("tau", [1e-3, 0.1])
def test_adaptive_optimisers_are_flowers_from_the_papers_start(
    name, entry, tau, make_updates, make_resources, monkeypatch
):
    """Flower's second moment is started at tau^2, and its correction of the bias is late enough."""
    moves = aggregates(1)
    theirs = getattr(flower, entry)(eta=0.05, beta_1=0.8, beta_2=0.95, tau=tau)
    theirs.v_t = {"w": np.full(SIZE, tau**2, np.float32)}
    expected = flowers(theirs, moves, monkeypatch, number=10**6)
    settings = {"rate": 0.05, "beta1": 0.8, "beta2": 0.95, "tau": tau}
    found = ours(name, moves, make_updates, make_resources, **settings)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_flower_corrects_the_bias_of_fedadam_by_one_round_too_many_and_the_paper_does_not(
    make_updates, make_resources, monkeypatch
):
    theirs = flower.FedAdam(eta=0.05, beta_1=0.8, beta_2=0.95, tau=1e-3)
    theirs.v_t = {"w": np.full(SIZE, 1e-6, np.float32)}
    expected = flowers(theirs, aggregates()[:1], monkeypatch)
    settings = {"rate": 0.05, "beta1": 0.8, "beta2": 0.95}
    found = ours("fedadam", aggregates()[:1], make_updates, make_resources, **settings)
    late = np.sqrt(1 - 0.95**2) / (1 - 0.8**2)
    np.testing.assert_allclose(found * late, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
def test_fedavgm_is_sgd_with_momentum_on_the_pseudo_gradient(
    nesterov, make_updates, make_resources
):
    moves = aggregates(2)
    weights = nn.Parameter(torch.zeros(SIZE))
    sgd = torch.optim.SGD([weights], lr=0.3, momentum=0.9, nesterov=nesterov)
    expected = []
    for move in moves:
        weights.grad = -torch.from_numpy(move)
        sgd.step()
        expected.append(weights.detach().clone().numpy())
    found = ours(
        "fedavgm", moves, make_updates, make_resources, rate=0.3, beta1=0.9, nesterov=nesterov
    )
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-6)


def test_two_rounds_by_hand(make_updates, make_resources):
    """One weight moves by 2, then by -1; beta1 = 1/2, beta2 = 3/4, tau = 1, rate 1."""
    moves = np.zeros((2, SIZE), np.float32)
    moves[:, 0] = [2, -1]
    settings = {"rate": 1.0, "beta1": 0.5, "beta2": 0.75, "tau": 1.0}
    adam, yogi, momentum = (
        ours(name, moves, make_updates, make_resources, **settings)[:, 0]
        for name in ("fedadam", "fedyogi", "fedavgm")
    )
    # v: 1 -> 3/4 + 4/4 = 7/4 -> 21/16 + 1/4 = 25/16, root 5/4; m: 1 -> 1/2 - 1/2 = 0
    assert adam == pytest.approx([1 / (1 + 1.75**0.5)] * 2)
    # v: 1 -> 1 + 4/4 = 2 -> 2 - 1/4
    assert yogi == pytest.approx([1 / (1 + 2**0.5)] * 2)
    assert momentum == pytest.approx([2, 2 + 0.5 * 2 - 1])


# What is stepped, and when


@pytest.mark.parametrize("defense", ["undefended", "norm_clipping", "rlr", "trimmed_mean", "krum"])
def test_the_step_is_of_what_the_defense_answers_at_the_rate_one(
    defense, make_updates, make_resources
):
    deltas = np.random.default_rng(3).normal(size=(7, SIZE)).astype(np.float32)
    updates, entry = make_updates(deltas), DEFENSES[defense]
    args = entry.hyperparameters(**({"f": 1} if defense in ("krum", "trimmed_mean") else {}))
    answer = entry(args, make_resources(updates)).aggregate(updates)
    optimiser = OptimiserArgs("fedavgm", beta1=0.5)
    server = entry(args, make_resources(updates, server_lr=0.25, optimiser=optimiser))
    found = admit(server, updates)
    delta = answer.weights - updates.global_weights
    assert float(delta.norm()) > 0.1
    torch.testing.assert_close(found.weights, updates.global_weights + 0.25 * delta)
    assert repr(found.verdicts) == repr(answer.verdicts)
    assert found.diagnostics["pseudo_gradient"] == pytest.approx(float(delta.norm()))
    assert found.diagnostics["server_step"] == pytest.approx(0.25 * float(delta.norm()), rel=1e-5)


def test_statistics_are_no_weights_and_no_optimiser_steps_them(make_updates, make_resources):
    """Flower's strategies step variances and counters, too."""
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    size = ParamSpec.of(model).num_parameters
    rng = np.random.default_rng(0)
    buffers = rng.uniform(0.5, 2, size=(3, 7)).round(3)
    buffers[:, 6] = [4, 9, 6]
    updates = make_updates(rng.normal(size=(3, size)), buffers=buffers, model=model)
    for bn_policy in ("weighted", "median", "keep"):
        plain, stepped = (
            admit(
                Undefended(
                    UndefendedArgs(),
                    make_resources(model, bn_policy=bn_policy, optimiser=optimiser),
                ),
                updates,
            )
            for optimiser in (None, OptimiserArgs("fedadam"))
        )
        assert torch.equal(plain.buffers, stepped.buffers)
        assert not torch.allclose(plain.weights, stepped.weights)


def test_re_estimated_statistics_are_those_of_the_stepped_model(make_updates, make_resources):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3))
    size = ParamSpec.of(model).num_parameters
    updates = make_updates(np.ones((2, size)), model=model)
    x = torch.randn(64, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    clean = CleanData(x, torch.zeros(64, dtype=torch.long))
    changes = {"bn_policy": "recalibrate", "clean": clean, "image": (1, 2)}
    args = OptimiserArgs("fedavgm")
    resources = make_resources(model, server_lr=3.0, optimiser=args, **changes)
    answer = admit(Undefended(UndefendedArgs(), resources), updates)
    stepped = resources.module(answer.state)
    means = stepped[1](stepped[0](x)).mean(0)
    found = answer.buffers[:3]
    torch.testing.assert_close(found, means.detach(), atol=0.2, rtol=0)
    plain = resources.module(answer.state._replace(weights=updates.global_weights + 1))
    assert not torch.allclose(found, plain[1](plain[0](x)).mean(0), atol=0.5)


class Answers(Undefended):
    """A defense whose answers are given to it."""

    def __init__(self, resources, answers):
        super().__init__(UndefendedArgs(), resources)
        self.answers = list(answers)

    def aggregate(self, updates):
        weights, fields, accepted = self.answers.pop(0)
        judged = verdicts(updates, [accepted] * len(updates), torch.zeros(len(updates)))
        return Aggregation(torch.tensor(weights), updates.global_buffers, judged, **fields)


@pytest.fixture
def answering(make_updates, make_resources):
    """Return the models after each of some answers, with a velocity that never fades."""

    def play(*answers, name="fedavgm", **settings):
        start, found = torch.zeros(2), []
        first = make_updates(np.zeros((3, 2)), origin=start)
        args = OptimiserArgs(name, **{"beta1": 1.0, **settings})
        server = Answers(make_resources(first, optimiser=args), answers)
        for number in range(1, len(answers) + 1):
            updates = make_updates(np.zeros((3, 2)), origin=start, round=number)
            start = admit(server, updates).weights
            found.append(start.tolist())
        return found, server

    return play


STEP = ([1.0, 0.0], {}, True)
"""From a model of zeros: one to the right."""


def test_a_student_replaces_the_model_and_the_moments_begin_anew(answering):
    found, _ = answering(
        STEP, ([5.0, 5.0], {"replaced": True}, True), ([5.0, 6.0], {}, True), ([5.0, 7.0], {}, True)
    )
    assert found == [[1, 0], [5, 5], [5, 6], [5, 8]]


def test_a_round_that_accepts_nobody_is_no_step_and_no_velocity_carries_on(answering):
    found, server = answering(STEP, ([1.0, 0.0], {}, False), ([1.0, 0.0], {}, True))
    assert found == [[1, 0], [1, 0], [2, 0]]
    assert server.optimiser.moments.first.tolist() == [1, 0]


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi"])
def test_a_step_that_is_not_finite_keeps_model_and_moments(answering, name):
    huge = 3e38
    start = answering(STEP, name=name, beta1=0.5)[1].optimiser.moments
    answers = [STEP, ([float("nan"), 0.0], {}, True)]
    if name == "fedavgm":  # 3e38, and as much again by the velocity
        answers += [([huge, 0.0], {}, True), ([huge, 0.0], {}, True)]
    found, server = answering(*answers, name=name, beta1=0.5)
    assert found[1] == found[0]
    if name == "fedavgm":
        assert found[3][0] == found[2][0]
    else:
        for one, other in zip(start, server.optimiser.moments, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi"])
def test_the_square_of_a_huge_weight_does_not_stop_a_coordinate_for_ever(answering, name):
    """In float32 the second moment would be infinite, and the weight never move again."""
    answers = [([1e30, 0.0], {}, True), *([([1e30, 0.0], {}, True)] * 3)]
    found, server = answering(*answers, name=name, beta1=0.0, beta2=0.9)
    assert torch.isfinite(server.optimiser.moments.second).all()
    assert all(later[0] > 0 for later in found)
    assert found[3][0] > found[0][0]


def test_too_few_clients_are_no_step(make_updates, make_resources):
    updates = make_updates([(1, 0), (0, float("nan")), (float("nan"), 1)])
    entry = DEFENSES["rlr"]
    resources = make_resources(updates, optimiser=OptimiserArgs("fedavgm"))
    server = entry(entry.hyperparameters(theta=2), resources)
    answer = admit(server, updates)
    assert torch.equal(answer.weights, updates.global_weights)
    assert server.optimiser.moments is None


def test_one_client_and_a_zero_step(make_updates, make_resources):
    updates = make_updates([(0, 0, 0)])
    for name in ("fedavgm", "fedadam", "fedyogi"):
        resources = make_resources(updates, optimiser=OptimiserArgs(name))
        answer = admit(Median(MedianArgs(), resources), updates)
        assert torch.equal(answer.weights, updates.global_weights)


def test_crfl_clips_and_noises_what_the_optimiser_made(make_updates, make_resources):
    updates = make_updates(np.full((4, 3), 2.0), origin=[1, 1, 1])
    args = CrflArgs(sigma=0.0, rho_start=0.9, rho_growth=0.1)
    resources = make_resources(updates, server_lr=5.0, optimiser=OptimiserArgs("fedavgm"))
    answer = admit(Crfl(args, resources), updates)
    assert float(answer.weights.norm()) == pytest.approx(1.0)
    assert answer.diagnostics["model_norm"] == pytest.approx(11 * 3**0.5)
    noised = admit(Crfl(CrflArgs(sigma=1.0, rho_start=0.9), resources), updates)
    assert float((noised.weights - answer.weights).norm()) > 0.1


def test_a_stream_is_stepped_as_the_matrix_is(make_updates, make_resources):
    updates = make_updates(np.random.default_rng(4).normal(size=(5, SIZE)))
    resources = make_resources(updates, server_lr=0.01, optimiser=OptimiserArgs("fedyogi"))
    expected = admit(Undefended(UndefendedArgs(), resources), updates)
    server = Undefended(UndefendedArgs(), resources)
    stream = Stream(server, 1, updates.global_state)
    for row, client in enumerate(updates.client_ids):
        stream.accept(client, updates.state(row), 10)
    torch.testing.assert_close(stream.finish().weights, expected.weights, atol=1e-6, rtol=0)
    assert server.optimiser.moments is not None


# Its state


def test_a_checkpoint_brings_back_defense_and_optimiser(make_updates, make_resources):
    entry = DEFENSES["foolsgold"]
    rounds = [
        make_updates(np.random.default_rng(seed).normal(size=(5, SIZE)), round=seed + 1)
        for seed in range(4)
    ]
    resources = make_resources(rounds[0], optimiser=OptimiserArgs("fedyogi"), server_lr=0.1)
    args = entry.hyperparameters(features="all")
    whole, stopped = (entry(args, resources) for _ in range(2))
    expected = [admit(whole, updates).weights for updates in rounds]
    for updates in rounds[:2]:
        admit(stopped, updates)
    tree, tensors = pack(stopped.snapshot())
    resumed = entry(args, resources)
    resumed.restore(unpack(json.loads(json.dumps(tree)), tensors))
    for updates, weights in zip(rounds[2:], expected[2:], strict=True):
        assert torch.equal(admit(resumed, updates).weights, weights)
    forgetful = entry(args, resources)
    forgetful.restore(stopped.state_dict())
    assert not torch.equal(admit(forgetful, rounds[2]).weights, expected[2])


def test_a_snapshot_is_not_changed_by_later_rounds(make_updates, make_resources):
    updates = make_updates(np.ones((3, SIZE)))
    resources = make_resources(updates, optimiser=OptimiserArgs("fedadam"))
    server = Median(MedianArgs(), resources)
    admit(server, updates)
    state = server.snapshot()["server optimiser"]
    before = {name: tensor.clone() for name, tensor in state.items()}
    admit(server, updates)
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items())


def test_without_an_optimiser_a_snapshot_is_the_defenses_state(make_updates, make_resources):
    updates = make_updates(np.ones((3, SIZE)))
    server = Crfl(CrflArgs(), make_resources(updates))
    assert server.snapshot() == server.state_dict() == {"start": None, "noise": 0.0}


# In an experiment


def test_an_experiment_has_it_and_its_default_is_no_part_of_an_identity(experiment, caplog):
    from entity.setup.assembly import assemble
    from entity.setup.identity import identity

    world = assemble(experiment({"server.optimiser": "fedyogi", "server.server_lr": 0.01}))
    assert world.server.optimiser.args == OptimiserArgs("fedyogi")
    assert world.server.optimiser.rate == 0.01
    assert not caplog.records
    assert identity(experiment({"server.optimiser": "none"})) == identity(experiment())
    assert identity(experiment({"server.optimiser": "fedavgm"})) != identity(experiment())


def test_an_adaptive_optimiser_at_the_rate_of_the_mean_is_warned_of(experiment, caplog):
    from entity.setup.assembly import assemble

    assemble(experiment({"server.optimiser": "fedadam"}))
    assert "server.server_lr = 1: fedadam moves every weight by about as much" in caplog.text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"server.optimiser": "adam"}, "server.optimiser = .adam.: allowed is"),
        ({"server.optimiser_beta1": 1.0}, "server.optimiser_beta1 = 1"),
        ({"server.optimiser_tau": 0}, "server.optimiser_tau = 0"),
    ],
)
def test_impossible_settings_are_refused(experiment, changes, words):
    with pytest.raises(ConfigError, match=words):
        experiment(changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([("optimiser_tau", "0.1")], "does nothing without server.optimiser = fedadam or fedyogi"),
        ([("optimiser", "fedavgm"), ("optimiser_beta2", "0.9")], "fedadam or fedyogi"),
        ([("optimiser", "fedadam"), ("optimiser_nesterov", "true")], "server.optimiser = fedavgm"),
    ],
)
def test_settings_without_effect_are_refused(tables, given: list, words: str):
    from entity.setup.resolve import experiment

    with pytest.raises(ConfigError, match=words):
        experiment(tables(), given)


def test_a_certificate_says_that_its_theorem_is_for_the_mean(experiment):
    from entity.seeding import Seeds
    from entity.setup.assembly import recruit
    from entity.setup.certificate import departures

    config = experiment({"server.optimiser": "fedavgm", "server.defense": {"type": "crfl"}})
    said = list(departures(config, recruit(config, Seeds(1))[1]))
    assert "the server steps by fedavgm (theorem: the mean is taken)" in said


@pytest.mark.parametrize("name", ["undefended", "norm_clipping", "alignins", "rlr"])
def test_a_round_in_which_nobody_has_a_sample_is_no_step(make_updates, make_resources, name):
    """Regression: momentum carried on what nobody stood for."""
    updates = make_updates([[1.0, 0], [0, 3], [1, 1], [1, 1]])
    entry, given = DEFENSES[name], OptimiserArgs("fedavgm")
    resources = make_resources(updates, weighting="samples", optimiser=given)
    server = entry(entry.hyperparameters(), resources)
    start = admit(server, updates).weights
    moments = server.optimiser.moments
    empty = make_updates([[5.0, 5]] * 4, num_samples=[0] * 4, origin=start, round=2)
    assert torch.equal(admit(server, empty).weights, start)
    assert server.optimiser.moments is moments
