"""What Ray's actors must do; `test_ray_actors.py` lets pytest run this where Ray may listen."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import torch

from entity.client import Broadcast
from entity.engine import Inline, RayActors
from entity.engine.ray_actors import join
from entity.experiment import run
from entity.params import ModelState
from entity.schema import ConfigError

TINY_DROP = {
    "type": "drop",
    "defense_args": {
        **{"K": 2, "distill_iters": 2, "batch_size": 8, "num_seed": 20, "iter_clone": 1},
        **{"iter_exp": 1, "gen_width": 4, "dis_width": 4},
    },
}


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """Where dying clients leave a mark; nodes and their actors inherit the variable."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("marks")
        patch.setenv("ODD_CLIENTS", str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.getcwd()]))
        yield folder


@pytest.fixture(scope="module")
def laptop(marks):
    assert join(ray, None, 3)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def roster(make_roster):
    return make_roster()


@pytest.fixture(scope="module")
def state(roster):
    return roster.spec.flatten(roster.new_model())


@pytest.fixture(scope="module")
def actors(roster, laptop):
    with RayActors(roster, 2) as engine:
        yield engine
    assert ray.is_initialized()  # it was there before the engine


def trained(engine, state, ids, rounds):
    previous = None
    for number in rounds:
        updates = engine.train(Broadcast(number, state, previous), ids)
        previous, state = (
            state.weights,
            ModelState(updates.weights.mean(0), updates.buffers.mean(0)),
        )
    return ModelState(updates.weights.clone(), updates.buffers.clone())


def same(one, other):
    return torch.equal(one.weights, other.weights) and torch.equal(one.buffers, other.buffers)


def test_actors_give_what_one_process_gives_to_the_bit(roster, state, actors, ids):
    """Three rounds with dropout, BatchNorm, augmentation, an attacker and clients' memory."""
    found = trained(actors, state, ids, [1, 2, 3])
    assert same(found, trained(Inline(roster), state, ids, [1, 2, 3]))
    assert actors.memory[0]["seen"].item() == 3.0


def test_models_are_handed_on_in_order(roster, state, actors, ids):
    actors.memory.clear()
    whole = actors.train(Broadcast(1, state), ids).weights.clone()
    actors.memory.clear()
    rows, ranks = [], []
    actors.stream(
        Broadcast(1, state), ids, lambda row, model: (ranks.append(row), rows.append(model[0] + 0))
    )
    assert ranks == [0, 1, 2, 3]
    assert torch.equal(torch.stack(rows), whole)


def test_a_client_whose_actor_is_killed_is_tried_again_with_the_same_result(
    roster, odd_clients, state, actors, marks, ids, caplog
):
    number = odd_clients.DIES_ONCE
    actors.memory.clear()
    with caplog.at_level(logging.WARNING, "entity"):
        found = trained(actors, state, ids, [number])
    assert (marks / f"died-{number}").exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"client 2: its actor died (on {socket.gethostbyname(socket.gethostname())}); "
        "trying once more"
    ]
    assert same(found, trained(Inline(roster), state, ids, [number]))
    assert actors.memory[2]["seen"].item() == 1.0


def test_a_client_whose_actor_dies_twice_is_refused_and_the_round_goes_on(
    roster, odd_clients, state, actors, ids, caplog
):
    with caplog.at_level(logging.WARNING, "entity"):
        actors.memory.clear()
        updates = actors.train(Broadcast(odd_clients.DIES_TWICE, state), ids)
    assert "client 2: its actor died again" in caplog.text
    assert updates.weights[2].isnan().all()
    others = Inline(roster).train(Broadcast(odd_clients.DIES_TWICE, state), (0, 1, 4))
    assert torch.equal(updates.weights[[0, 1, 3]], others.weights)


def test_an_error_in_a_client_surfaces_with_its_traceback(odd_clients, state, actors, ids):
    with pytest.raises(RuntimeError, match=r"(?s)client 1 failed.*the lens cap is on"):
        actors.train(Broadcast(odd_clients.FAILS, state), ids)


@pytest.mark.parametrize("defense", [None, TINY_DROP], ids=["fedavg", "drop"])
def test_whole_runs_are_the_same(laptop, experiment, defense):
    base = {"server.defense": defense, "federation.rounds": 2, "settings.workers": 1}
    one = run(experiment(base))
    other = run(experiment({**base, "settings.engine": "ray"}))
    assert same(other.state, one.state)
    for line, expected in zip(other.rounds, one.rounds, strict=True):
        assert {**line, "seconds": {}} == {**expected, "seconds": {}}


@pytest.fixture(scope="module")
def cluster(laptop, actors, marks):
    """Two nodes on this host, of which the second may die; the laptop's Ray is shut down."""
    actors.close()
    ray.shutdown()
    folder = os.environ["RAY_TMPDIR"]
    host = socket.gethostbyname(socket.gethostname())
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    head = ["--head", "--port=6399", "--include-dashboard=false", f"--temp-dir={folder}/cluster"]
    nodes = [subprocess.Popen([*start, *head, "--disable-usage-stats"], **quiet)]
    address = f"{host}:6399"
    try:
        while socket.socket().connect_ex((host, 6399)):
            assert nodes[0].poll() is None
            time.sleep(0.1)
        second = {**os.environ, "ODD_NODE": "1"}
        nodes.append(subprocess.Popen([*start, f"--address={address}"], env=second, **quiet))
        yield address
    finally:
        ray.shutdown()
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            node.wait(20)


def test_a_node_that_is_lost_is_survived_with_the_same_result(
    make_roster, odd_clients, state, cluster, ids, caplog
):
    roster = make_roster({"settings.ray_address": cluster})
    number = odd_clients.NODE_DIES
    with RayActors(roster, 2) as engine, caplog.at_level(logging.WARNING, "entity"):
        ray.wait([w.answer for w in engine._workers], num_returns=2)  # both nodes are there
        found = trained(engine, state, ids, [number])
    assert len([r for r in caplog.records if "trying once more" in r.getMessage()]) == 1
    assert same(found, trained(Inline(roster), state, ids, [number]))


def test_no_cluster_at_the_address_is_a_sentence(monkeypatch):
    monkeypatch.setenv("RAY_gcs_server_request_timeout_seconds", "1")
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(ConfigError, match=r"settings\.ray_address = 127\.0\.0\.1:9: no cluster"):
        join(ray, "127.0.0.1:9", 1)
