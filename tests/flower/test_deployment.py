"""A real SuperLink and SuperNodes on loopback, in a network namespace of their own.

Each scenario of `deployment.py` is carried out once; the tests look at what it left behind.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr.serverapp")

from deployed import EXPERIMENT, carry_out, lines_of, rounds_of

from entity import experiment as loop
from entity.layout import ModelState
from entity.record.checkpoint import Checkpoints
from entity.seeding import Seeds
from entity.setup.assembly import open_judge, recruit

pytestmark = pytest.mark.deployment


@pytest.fixture(scope="module")
def plain(tmp_path_factory, experiment) -> Path:
    return carry_out("plain", tmp_path_factory.mktemp("plain"), experiment(EXPERIMENT))


def close(found: ModelState, expected: ModelState) -> None:
    """Compare two models; rows are ordered by node id, which moves the last bits of sums."""
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-6)


def in_the_order_of(line: dict, folder: Path) -> Callable[..., tuple[int, ...]]:
    """Return what selects the clients in the order of the nodes in a deployed round."""
    nodes = json.loads((folder / "nodes.json").read_text())
    order = tuple(nodes[verdict["client"]] for verdict in line["verdicts"])
    return lambda *_: order


def test_the_federation_of_processes_is_the_simulators(plain, experiment, monkeypatch):
    lines = lines_of(plain, "state")
    # A distillation makes 1e-4 of the last bits that an order of the rows moves.
    monkeypatch.setattr(loop, "select", in_the_order_of(lines[0], plain))
    simulated = loop.run(experiment(EXPERIMENT | {"federation.rounds": 2}))
    expected = [sorted(line["accepted"]) for line in simulated.rounds]
    assert [line["accepted"] for line in lines] == expected
    found = Checkpoints(plain / "state", {}, 0).last(2)
    close(found.snapshot.state, simulated.state)
    split, roster = recruit(simulated.config, Seeds(3))
    model = roster.new_model()
    roster.spec.load(model, found.snapshot.state)
    scores = open_judge(simulated.config, split, roster)(model)
    last = simulated.rounds[-1]
    assert scores["mta"] == pytest.approx(last["mta"], abs=0.005)
    assert scores["asr"] == pytest.approx(last["asr"], abs=0.02)


def test_the_attacker_is_refused_and_named(plain, experiment):
    _, roster = recruit(experiment(EXPERIMENT), Seeds(3))
    (attacker,) = roster.malicious
    nodes = json.loads((plain / "nodes.json").read_text())
    identity = next(node for node, client in nodes.items() if client == attacker)
    first, second = lines_of(plain, "state")
    assert first["refused"] == {attacker: "1 penalty points"}
    assert set(second["refused"]) == {attacker}
    said = (plain / "drop.log").read_text()
    assert f"round 1: node {identity} refused: 1 penalty points" in said


def test_flowers_simulation_engine_gives_the_simulators_model(tmp_path, experiment):
    pytest.importorskip("ray")
    changes = EXPERIMENT | {"federation.rounds": 2, "server.defense": {"type": "droplet"}}
    config = experiment(changes)
    folder = carry_out("simulation", tmp_path, config)
    found = Checkpoints(folder / "state", {}, 0).last(2)
    simulated = loop.run(config)
    close(found.snapshot.state, simulated.state)
    for line, expected in zip(rounds_of(folder, "state"), simulated.rounds, strict=True):
        assert sum(v["accepted"] for v in line["verdicts"]) == len(expected["accepted"])
