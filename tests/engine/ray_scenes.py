"""Ray on one machine; `test_ray_actors.py` lets pytest run this where Ray may listen."""

import logging
import os
import socket
from pathlib import Path

import pytest
import ray
import torch

from entity.client import Broadcast
from entity.config.schema import ConfigError
from entity.engine import Inline, RayActors
from entity.engine.ray_cluster import join
from entity.experiment import run
from entity.layout import ModelState

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
    """Two workers: with the default they would take all cores, and leave none to another run."""
    return make_roster({"settings.workers": 2})


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


def test_an_error_in_a_client_surfaces_with_its_traceback(odd_clients, state, actors, ids):
    with pytest.raises(ConfigError, match=r"line \d+, in fit: ValueError: the lens cap is on"):
        actors.train(Broadcast(odd_clients.FAILS, state), ids)


def test_a_whole_run_of_drop_is_the_same(laptop, experiment):
    base = {"server.defense": TINY_DROP, "federation.rounds": 2, "settings.workers": 1}
    one = run(experiment(base))
    other = run(experiment({**base, "settings.engine": "ray"}))
    assert same(other.state, one.state)
    for line, expected in zip(other.rounds, one.rounds, strict=True):
        assert {**line, "seconds": {}} == {**expected, "seconds": {}}
