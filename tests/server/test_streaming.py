"""Updates taken as they come make the model, and the verdicts, that the matrix makes."""

import gc
from dataclasses import replace

import pytest
import torch
from torch import nn

import entity.experiment as loop
from entity.attacks import ATTACKS
from entity.cli.list import rows
from entity.config.schema import ConfigError
from entity.defenses import DEFENSES
from entity.defenses.crfl import Crfl, CrflArgs
from entity.defenses.norm_clipping import NormClipping, NormClippingArgs
from entity.defenses.undefended import Undefended, UndefendedArgs
from entity.experiment import run
from entity.server import Stream, admit
from entity.server.streaming import can_stream
from entity.setup import resolve

SIZES = [5, 50, 20, 1, 7, 30, 11]
STREAMING_DEFENSES = {
    "undefended": (Undefended, UndefendedArgs()),
    "clipping": (NormClipping, NormClippingArgs(c=4.0)),
    "weak dp": (NormClipping, NormClippingArgs(c=2.0, sigma=0.1)),
    "crfl": (Crfl, CrflArgs()),
}


@pytest.fixture(scope="module")
def network():
    """P = 53 with BatchNorm, whose statistics and counter are buffers."""
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 1, bias=False)).eval()


@pytest.fixture(scope="module")
def crowd(make_updates, network):
    """Seven clients of unequal sizes; updates of norms from 0 to about 7."""
    rng = torch.Generator().manual_seed(3)
    deltas = torch.randn(7, 54, generator=rng) * torch.arange(7)[:, None] / 7
    buffers = torch.rand(7, 13, generator=rng)
    buffers[:, -1] = torch.tensor([3, 9, 4, 1, 1, 6, 2])
    return make_updates(deltas, buffers=buffers, model=network, num_samples=SIZES)


def streamed(server, updates):
    stream = Stream(server, updates.round, updates.global_state)
    for row, client in enumerate(updates.client_ids):
        model = updates.state(row)
        kept = [tensor.clone() for tensor in model]
        stream.accept(client, model, float(updates.num_samples[row]))
        torch.testing.assert_close([*model], kept, rtol=0, atol=0, equal_nan=True)  # left alone
        for tensor in model:
            tensor.fill_(9e9)  # and may be written over
    return stream.finish()


def same(one, other):
    torch.testing.assert_close(one.weights, other.weights, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(one.buffers, other.buffers, rtol=1e-6, atol=1e-6)
    for found, expected in zip(one.verdicts, other.verdicts, strict=True):
        assert found.weight == pytest.approx(expected.weight, rel=1e-6)
        assert found.score == (None if expected.score is None else pytest.approx(expected.score))
        assert replace(found, weight=0, score=None) == replace(expected, weight=0, score=None)
    assert one.diagnostics == pytest.approx(other.diagnostics, rel=1e-6)


def copied(updates):
    return replace(updates, weights=updates.weights.clone(), buffers=updates.buffers.clone())


@pytest.mark.parametrize("policy", ["weighted", "keep", "original"])
@pytest.mark.parametrize("weighting", ["uniform", "samples"])
@pytest.mark.parametrize("name", STREAMING_DEFENSES)
def test_the_stream_makes_what_the_matrix_makes(
    make_resources, network, crowd, name, weighting, policy
):
    kind, args = STREAMING_DEFENSES[name]
    for rate in (1.0, 0.5):
        resources = make_resources(network, server_lr=rate, weighting=weighting, bn_policy=policy)
        whole = admit(kind(args, resources), crowd)
        same(streamed(kind(args, resources), copied(crowd)), whole)
        assert (whole.weights != crowd.global_weights).any()


def test_the_gate_stands_in_front_of_the_stream_too(make_resources, network, crowd):
    broken = copied(crowd)
    broken.weights[1, 4] = float("nan")
    broken.buffers[2, 0] = float("inf")
    broken = replace(broken, client_ids=(0, 1, 2, 3, 4, 4, 6))
    server = NormClipping(NormClippingArgs(c=4.0), make_resources(network, bn_policy="weighted"))
    whole = admit(server, broken)
    found = streamed(server, copied(broken))
    same(found, whole)
    reasons = [verdict.reason for verdict in found.verdicts]
    assert reasons == [
        *("", "nonfinite update", "nonfinite update", "", "", "repeated client id", "")
    ]
    assert found.diagnostics["gate_refused"] == 3


def test_without_a_survivor_the_global_model_stays(make_resources, network, crowd):
    broken = replace(copied(crowd), weights=torch.full_like(crowd.weights, float("nan")))
    found = streamed(Undefended(UndefendedArgs(), make_resources(network)), broken)
    assert torch.equal(found.weights, crowd.global_weights)
    assert torch.equal(found.buffers, crowd.global_buffers)
    assert not any(verdict.accepted for verdict in found.verdicts)


def test_equal_models_come_back_to_the_bit(make_updates, make_resources):
    updates = make_updates([[0.1, 0.7, -3.3]] * 9)
    server = Undefended(UndefendedArgs(), make_resources(updates))
    expected = updates.weights[0].clone()
    assert torch.equal(streamed(server, updates).weights, expected)


# --- whole runs

CLIPPED = {"type": "norm_clipping", "defense_args": {"c": 0.5}}


@pytest.mark.parametrize("defense", [None, CLIPPED], ids=["fedavg", "clipping"])
def test_a_run_that_streams_is_a_run_that_does_not(experiment, defense):
    base = {"server.defense": defense, "federation.rounds": 2}
    whole = run(experiment(base))
    found = run(experiment({**base, "settings.streaming": True}))
    torch.testing.assert_close(found.state.weights, whole.state.weights, rtol=1e-4, atol=1e-5)
    for line, expected in zip(found.rounds, whole.rounds, strict=True):
        assert line["accepted"] == expected["accepted"]
        assert line["weights"] == pytest.approx(expected["weights"], rel=1e-4)
        assert set(line["seconds"]) >= {"train", "aggregate", "evaluate", "aggregate_accumulate"}


@pytest.mark.parametrize("engine", [pytest.param("pool", marks=pytest.mark.slow), "vectorized"])
def test_every_engine_streams_the_same(experiment, engine):
    """The pool to the bit, since it hands models on in the order of their rows."""
    base = {
        **{"federation.size": 9, "federation.round_size": 9},
        "federation.rounds": 1,
        "client.ADR": 0.05,
        "settings.streaming": True,
        "settings.workers": 2,
        "settings.num_parallel_max": 4,
    }
    one = run(experiment(base)).state
    other = run(experiment({**base, "settings.engine": engine})).state
    if engine == "pool":
        assert torch.equal(one.weights, other.weights)
    torch.testing.assert_close(one.weights, other.weights, rtol=0, atol=1e-4)


def alive(size):
    """Count the models in memory: storages of floats, of at least one model each."""
    gc.collect()
    found = {}
    for each in gc.get_objects():
        if type(each) is torch.Tensor and each.is_floating_point():
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes() // each.element_size()
    return sum(count // size for count in found.values())


@pytest.mark.slow
def test_memory_does_not_grow_with_the_round(experiment, monkeypatch):
    counted = []

    class Counting(Stream):
        def finish(self):
            counted.append(alive(len(self.start.weights)))
            return super().finish()

    def counting_admit(server, updates):
        counted.append(alive(updates.weights.shape[1]))
        return admit(server, updates)

    monkeypatch.setattr(loop, "Stream", Counting)
    monkeypatch.setattr(loop, "admit", counting_admit)
    for streaming in (True, False):
        for clients in (3, 30):
            changes = {
                "client.attack": None,
                "federation.size": 30,
                "federation.round_size": clients,
                "federation.rounds": 1,
                "settings.streaming": streaming,
            }
            run(experiment(changes))
    few, many, matrix_of_few, matrix_of_many = counted
    assert many == few
    assert matrix_of_many - matrix_of_few == 27


# --- who can


def test_the_list_says_who_can_stream():
    listed = {row["name"]: row["streams"] for row in rows("defenses")}
    able = {name: how for name, how in listed.items() if how != "no"}
    assert able == {
        **dict.fromkeys(["undefended", "crfl", "flip", "finetuning"], "yes"),
        "drop_plus": "with coalition null and clip false",
        "norm_clipping": "with a number as c",
        "weak_dp": "with a number as norm_bound",
    }
    for name, server in DEFENSES.items():
        assert can_stream(server, server.hyperparameters()) == (listed[name] == "yes")


def test_who_cannot_stream_is_refused_with_those_who_can(experiment):
    changes = {"settings.streaming": True, "server.defense": {"type": "median"}}
    with pytest.raises(ConfigError, match=r"streaming = true: median .* undefended, drop_plus"):
        experiment(changes)
    adaptive = {**changes, "server.defense": {"type": "norm_clipping"}}
    with pytest.raises(ConfigError, match="norm_clipping with these settings needs all updates"):
        experiment(adaptive)


def test_attackers_who_look_at_each_others_updates_are_refused(experiment):
    colluders = {
        name for name, attack in ATTACKS.items() if attack.colludes(attack.hyperparameters())
    }
    assert {"alie", "min_max", "ipm", "model_replacement"} <= colluders
    assert "badnets" not in colluders
    with pytest.raises(ConfigError, match=r"the attackers of alie look at the round's"):
        experiment({"settings.streaming": True, "client.attack.type": "alie"})
    scales = {"client.attack.type": "model_replacement", "settings.streaming": True}
    with pytest.raises(ConfigError, match=r"the attackers of model_replacement look at the"):
        experiment(scales)
    experiment({**scales, "client.attack.gamma": 3.0})  # which needs no other's update


def test_streaming_is_a_part_of_what_a_run_is_only_where_it_is_on(experiment):
    plain = experiment()
    assert resolve.identity(experiment({"settings.streaming": True})) != resolve.identity(plain)
    tables = resolve.to_json(plain)
    for name in ("streaming", "compile", "ray_address"):
        del tables["settings"][name]  # a run of before there were these
    assert resolve.fingerprint(tables) == resolve.identity(plain)


def test_whole_numbers_below_zero_come_through_a_stream(make_updates, make_resources):
    """Regression: the highest of a buffer's values was at least zero."""
    model = nn.Linear(2, 1)
    model.register_buffer("offset", torch.tensor([-3, 7]))
    updates = make_updates(torch.zeros(2, 3), model=model, buffers=[[-3, 7], [-5, 9]])
    server = Undefended(UndefendedArgs(), make_resources(model))
    stream = Stream(server, 1, updates.global_state)
    for row in range(2):
        stream.accept(row, updates.state(row), 1)
    assert stream.finish().buffers.tolist() == admit(server, updates).buffers.tolist() == [-3, 9]
