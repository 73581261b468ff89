"""A real SuperLink and SuperNodes on loopback, in a network namespace of their own.

Each scenario of `deployment.py` is carried out once; the tests look at what it left behind.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr.serverapp")

from entity import experiment as loop
from entity.cli.deploy import write_app
from entity.layout import ModelState
from entity.record.checkpoint import Checkpoints
from entity.seeding import Seeds
from entity.setup.assembly import open_judge, recruit

pytestmark = pytest.mark.deployment
plain_run = pytest.mark.xdist_group("plain")  # the tests of one scenario run in one process
secure_run = pytest.mark.xdist_group("secure")

NAMESPACE = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c"]
EXPERIMENT = {
    "federation.round_size": 4,
    "client.num_epochs": 2,
    "client.ADR": 0.2,
    "server.held_out": 60,
    "settings.seed": 3,
    "server.defense": {
        "type": "drop",
        "defense_args": {
            **{"K": 1, "distill_iters": 2, "gen_width": 4, "dis_width": 4, "batch_size": 16},
            **{"model_gen": "conv3_gen", "model_dis": "conv3_dis", "num_seed": 20},
            "clone_init_with_global": True,
        },
    },
}


def carry_out(scenario: str, folder: Path, config) -> Path:
    try:
        subprocess.run([*NAMESPACE, "ip link set lo up"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no network namespaces here (unshare)")
    write_app(folder / "app", config)
    driver = Path(__file__).with_name("deployment.py")
    command = f'ip link set lo up; exec "{sys.executable}" "{driver}" {scenario} "{folder}"'
    done = subprocess.run([*NAMESPACE, command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory, experiment) -> Path:
    return carry_out("plain", tmp_path_factory.mktemp("plain"), experiment(EXPERIMENT))


@pytest.fixture(scope="module")
def secure(tmp_path_factory, experiment) -> Path:
    return carry_out("secure", tmp_path_factory.mktemp("secure"), experiment(EXPERIMENT))


def close(found: ModelState, expected: ModelState) -> None:
    """Compare two models; rows are ordered by node id, which moves the last bits of sums."""
    torch.testing.assert_close(found.weights, expected.weights, rtol=1e-4, atol=1e-6)


def rounds_of(folder: Path, state: str) -> list[dict]:
    """Return the rounds of a state folder."""
    return [json.loads(line) for line in (folder / state / "rounds.jsonl").read_text().splitlines()]


def lines_of(folder: Path, state: str) -> list[dict]:
    """Return the rounds of a state folder, with clients for node ids."""
    nodes = json.loads((folder / "nodes.json").read_text())
    lines = rounds_of(folder, state)
    for line in lines:
        verdicts = line["verdicts"]
        line["accepted"] = sorted(nodes[v["client"]] for v in verdicts if v["accepted"])
        line["refused"] = {nodes[v["client"]]: v["reason"] for v in verdicts if not v["accepted"]}
    return lines


@plain_run
@pytest.mark.parametrize(("name", "rounds"), [("droplet", 2), ("drop", 1)])
def test_the_federation_of_processes_is_the_simulators(name, rounds, plain, experiment):
    changes = EXPERIMENT | {"federation.rounds": rounds}
    if name == "droplet":
        changes["server.defense"] = {"type": "droplet"}
    simulated = loop.run(experiment(changes))
    lines = lines_of(plain, f"{name}-state")
    assert [line["accepted"] for line in lines] == [r["accepted"] for r in simulated.rounds]
    found = Checkpoints(plain / f"{name}-state", {}, 0).last(rounds)
    close(found.snapshot.state, simulated.state)
    split, roster = recruit(simulated.config, Seeds(3))
    model = roster.new_model()
    roster.spec.load(model, found.snapshot.state)
    scores = open_judge(simulated.config, split, roster)(model)
    last = simulated.rounds[-1]
    assert scores["mta"] == pytest.approx(last["mta"], abs=0.005)
    assert scores["asr"] == pytest.approx(last["asr"], abs=0.02)


@plain_run
def test_the_attacker_is_refused_and_named(plain, experiment):
    _, roster = recruit(experiment(EXPERIMENT), Seeds(3))
    (attacker,) = roster.malicious
    nodes = json.loads((plain / "nodes.json").read_text())
    identity = next(node for node, client in nodes.items() if client == attacker)
    for state, log in (("droplet-state", "droplet.log"), ("drop-state", "drop.log")):
        line = lines_of(plain, state)[0]
        assert line["refused"] == {attacker: "1 penalty points"}
        said = (plain / log).read_text()
        assert f"round 1: node {identity} refused: 1 penalty points" in said


@secure_run
def test_a_node_without_a_key_is_turned_away(secure):
    said = (secure / "stranger.log").read_text()
    assert "SuperNode ID" not in said
    assert len(json.loads((secure / "nodes.json").read_text())) == 4
    assert all(len(line["verdicts"]) == 4 for line in lines_of(secure, "state"))


@secure_run
def test_a_node_of_nan_is_refused_in_every_round(secure):
    reasons = [line["refused"][3] for line in lines_of(secure, "state")]
    assert reasons == ["nonfinite update"] * 2


@secure_run
def test_a_restarted_server_goes_on_and_a_killed_node_costs_its_round_alone(secure):
    first, second = lines_of(secure, "state")
    assert (first["round"], second["round"]) == (1, 2)
    assert "going on after round 1" in (secure / "second.log").read_text()
    assert 2 in second["refused"]
    reason = second["refused"][2]
    assert reason == "no reply in time" or reason.startswith("error reply")
    assert second["aggregated"]
    assert {v["client"] for v in first["verdicts"]} == {v["client"] for v in second["verdicts"]}


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
