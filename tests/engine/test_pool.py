"""The pool gives what the inline engine gives, to the bit, also when workers die.

Starting a worker imports torch, so all tests share one pool of three workers and one of one.
"""

import logging
import os
import signal
import time

import pytest
import torch

from entity.client import Broadcast
from entity.defenses import Undefended, UndefendedArgs
from entity.engine import Inline, Pool
from entity.layout import ModelState
from entity.server import Averaging, Resources, admit


@pytest.fixture(scope="module")
def roster(make_roster):
    return make_roster()


@pytest.fixture(scope="module")
def state(roster):
    return roster.spec.flatten(roster.new_model())


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """Where dying clients leave a mark; workers inherit the variable."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("marks")
        patch.setenv("ODD_CLIENTS", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pool(roster, marks):
    with Pool(roster, 3) as pool:
        yield pool
    assert not any(worker.is_alive() for worker in pool.processes)


@pytest.fixture(scope="module")
def single(roster, marks):
    with Pool(roster, 1) as pool:
        os.kill(pool.processes[0].pid, signal.SIGINT)  # as Ctrl-C does, while it imports
        yield pool


def copy(updates):
    return ModelState(updates.weights.clone(), updates.buffers.clone())


def trained(engine, state, ids, rounds, previous=None):
    """Train some rounds, each from the mean of the one before, and return the last one."""
    for number in rounds:
        updates = engine.train(Broadcast(number, state, previous), ids)
        previous, state = (
            state.weights,
            ModelState(updates.weights.mean(0), updates.buffers.mean(0)),
        )
    return copy(updates)


def same(one, other):
    return torch.equal(one.weights, other.weights) and torch.equal(one.buffers, other.buffers)


def test_any_number_of_workers_gives_what_one_process_gives_to_the_bit(
    roster, state, pool, single, ids
):
    """Three rounds with dropout, BatchNorm, augmentation, an attacker and clients' memory."""
    expected = trained(Inline(roster), state, ids, [1, 2, 3])
    started = single.processes
    for engine in (pool, single):
        engine.memory.clear()
        assert same(trained(engine, state, ids, [1, 2, 3]), expected)
        assert engine.memory[0]["seen"].item() == 3.0
    assert single.processes == started  # deaf to the Ctrl-C


def test_no_more_workers_than_clients_are_started(pool, single):
    assert len(pool.processes) == 3
    assert len(single.processes) == 1


def test_fewer_clients_than_last_time_leave_no_rows_behind(roster, state, pool):
    pool.memory.clear()
    found = copy(pool.train(Broadcast(1, state), (1, 4)))
    assert same(found, copy(Inline(roster).train(Broadcast(1, state), (1, 4))))


def test_the_broadcast_is_not_changed_by_training(state, pool, ids):
    before = state.weights.clone()
    updates = pool.train(Broadcast(1, state), ids)
    assert torch.equal(state.weights, before)
    assert torch.equal(updates.global_weights, before)


def test_a_client_whose_worker_is_killed_is_tried_again_with_the_same_result(
    roster, odd_clients, state, pool, marks, ids, caplog
):
    number = odd_clients.DIES_ONCE
    with caplog.at_level(logging.WARNING, "entity"):
        pool.memory.clear()
        found = copy(pool.train(Broadcast(number, state), ids))
    assert (marks / f"died-{number}").exists()
    assert [record.getMessage() for record in caplog.records] == [
        "client 2: its worker died (exit -9); trying once more"
    ]
    assert same(found, copy(Inline(roster).train(Broadcast(number, state), ids)))
    assert pool.memory[2]["seen"].item() == 1.0  # it trained once, whatever was lost
    assert all(worker.is_alive() for worker in pool.processes)


def test_a_client_whose_worker_dies_twice_is_refused_and_the_round_goes_on(
    roster, odd_clients, state, pool, marks, ids, caplog
):
    number = odd_clients.DIES_TWICE
    with caplog.at_level(logging.WARNING, "entity"):
        pool.memory.clear()
        updates = pool.train(Broadcast(number, state), ids)
    assert len((marks / f"died-{number}").read_text().split()) == 2
    assert "client 2: its worker died again (exit -9); refused" in caplog.text
    assert updates.weights[2].isnan().all()
    resources = Resources(
        roster.spec, roster.fresh_model, roster.seeds, (1, 12), 4, Averaging(), roster.recipe
    )
    answer = admit(Undefended(UndefendedArgs(), resources), updates)
    assert [verdict.accepted for verdict in answer.verdicts] == [True, True, False, True]
    assert answer.verdicts[2].reason == "nonfinite update"
    assert answer.weights.isfinite().all()
    others = Inline(roster).train(Broadcast(number, state), (0, 1, 4))
    assert torch.equal(updates.weights[[0, 1, 3]], others.weights)
    again = pool.train(Broadcast(1, state), ids)  # and the next round is whole again
    assert again.weights.isfinite().all()


def test_an_error_in_a_client_surfaces_with_its_traceback_and_the_pool_can_be_closed(
    odd_clients, state, single, ids
):
    workers = single.processes
    with pytest.raises(RuntimeError) as error:
        single.train(Broadcast(odd_clients.FAILS, state), ids)
    text = str(error.value)
    assert text.startswith("client 1 failed in a worker:")
    assert 'raise ValueError("the lens cap is on")' in text
    assert "odd_clients.py" in text
    began = time.monotonic()
    single.__exit__(None, None, None)
    assert time.monotonic() - began < 5
    assert not any(worker.is_alive() for worker in workers)


def test_an_idle_worker_that_died_costs_nothing_but_a_new_one(roster, state, pool, ids):
    pool.memory.clear()
    worker = pool.processes[0]
    worker.kill()
    worker.join()
    found = copy(pool.train(Broadcast(1, state), ids))
    assert same(found, copy(Inline(roster).train(Broadcast(1, state), ids)))
    assert pool.processes[0] is not worker
