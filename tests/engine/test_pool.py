"""The pool gives what the inline engine gives, to the bit, also when workers die.

Starting a worker imports torch, so all tests share one pool of three workers and one of one.
"""

import logging
import os
import pickle
import re
import signal
import time

import pytest
import torch

from entity.client import Broadcast
from entity.config.schema import ConfigError
from entity.defenses import Undefended, UndefendedArgs
from entity.engine import Inline, NoWorkers, Pool, open_engine
from entity.engine.pool import _arrays, _tensors
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


def dies_at_once(*args):
    os._exit(7)


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_client_whose_worker_dies_twice_is_missing_and_the_round_goes_on(
    roster, odd_clients, state, pool, marks, ids, caplog
):
    number = odd_clients.DIES_TWICE
    with caplog.at_level(logging.WARNING, "entity"):
        pool.memory.clear()
        updates = pool.train(Broadcast(number, state), ids)
    assert len((marks / f"died-{number}").read_text().split()) == 2
    assert "client 2: its worker died again (exit -9); it is missing" in caplog.text
    assert updates.client_ids == (0, 1, 4)
    resources = Resources(
        roster.spec, roster.fresh_model, roster.seeds, (1, 12), 4, Averaging(), roster.recipe
    )
    answer = admit(Undefended(UndefendedArgs(), resources), updates)
    assert [verdict.client for verdict in answer.verdicts if verdict.accepted] == [0, 1, 4]
    assert len(answer.verdicts) == 3
    assert answer.weights.isfinite().all()
    others = Inline(roster).train(Broadcast(number, state), (0, 1, 4))
    assert torch.equal(updates.weights, others.weights)
    assert torch.equal(updates.num_samples, others.num_samples)
    again = pool.train(Broadcast(1, state), ids)  # and the next round is whole again
    assert again.weights.isfinite().all()


def test_a_round_whose_workers_all_die_ends_with_one_sentence(
    roster, odd_clients, state, pool, marks
):
    pool.memory.clear()
    with pytest.raises(NoWorkers, match=r"round 11: the workers of all 1 clients died, twice each"):
        pool.train(Broadcast(odd_clients.DIES_TWICE, state), (2,))


@pytest.mark.slow
def test_streaming_leaves_out_who_was_lost(roster, odd_clients, state, pool, marks, ids):
    pool.memory.clear()
    rows = []
    pool.stream(Broadcast(odd_clients.DIES_TWICE, state), ids, lambda row, model: rows.append(row))
    assert rows == [0, 1, 3]


def test_a_full_dev_shm_is_a_sentence_with_the_mend(roster, monkeypatch):
    def full(*args):
        raise RuntimeError("unable to allocate shared memory(shm) for file </t>: No space left on")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(NoWorkers, match=r"/dev/shm is too small .*--shm-size.*--engine inline"):
        Pool(roster, 2)


@pytest.mark.usefixtures("importable_main")
def test_auto_trains_inline_where_dev_shm_is_full(make_roster, monkeypatch, caplog):
    def full(*args):
        raise RuntimeError("No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    roster = make_roster({"settings.engine": "auto", "settings.workers": 2})
    with caplog.at_level(logging.WARNING, "entity"), open_engine(roster) as engine:
        assert type(engine) is Inline
    assert len(caplog.messages) == 1
    assert "engine auto: one client trains after another, as /dev/shm is too small" in caplog.text


def test_what_clients_remember_goes_through_a_pipe_as_it_is():
    """Regression: NumPy has no bfloat16, and the run ended with a traceback."""
    kept = {"half": torch.randn(3).bfloat16(), "one": torch.tensor(2.5), "mask": torch.ones(2) > 0}
    sent = _tensors(pickle.loads(pickle.dumps(_arrays(kept))))
    assert all(each.dtype == kept[name].dtype for name, each in sent.items())
    assert all(torch.equal(each, kept[name]) for name, each in sent.items())


def test_what_clients_remember_takes_no_shared_memory(roster, state, pool, ids):
    """Each tensor that goes through a pipe as such keeps a file of it open, for the whole run."""
    pool.memory.clear()
    pool.train(Broadcast(1, state), ids)
    assert set(pool.memory) == set(ids)  # the attacker keeps what it would as a benign client
    assert not any(kept.is_shared() for memory in pool.memory.values() for kept in memory.values())


@pytest.mark.slow
def test_workers_that_never_start_are_a_sentence_that_names_the_guard(roster, monkeypatch):
    monkeypatch.setattr("entity.engine.pool._work", dies_at_once)
    with pytest.raises(NoWorkers, match=r"exit 7; .*stands above\). .*__main__.*inline needs no"):
        Pool(roster, 2).started()


def test_an_error_in_a_client_surfaces_with_its_traceback_and_the_pool_can_be_closed(
    odd_clients, state, single, ids
):
    workers = single.processes
    with pytest.raises(ConfigError) as error:  # the module of the model is a plugin
        single.train(Broadcast(odd_clients.FAILS, state), ids)
    assert re.fullmatch(
        r"plugins = \S+odd_clients\.py, line \d+, in fit: ValueError: the lens cap is on\.",
        str(error.value),
    )
    (whole,) = error.value.__notes__
    assert 'raise ValueError("the lens cap is on")' in whole
    assert whole.startswith("Traceback (most recent call last):")
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
