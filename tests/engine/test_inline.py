from dataclasses import replace

import pytest
import torch

from entity.client import Broadcast, Client
from entity.engine import ENGINES, Inline, choose_engine, open_engine, worker_count
from entity.layout import ModelState


def start(roster):
    return roster.spec.flatten(roster.new_model())


def copy(updates):
    return ModelState(updates.weights.clone(), updates.buffers.clone())


def test_updates_carry_ids_sizes_and_what_the_clients_started_from(make_roster, ids):
    roster = make_roster()
    state = start(roster)
    updates = Inline(roster).train(Broadcast(3, state), ids)
    assert (updates.round, updates.client_ids) == (3, ids)
    assert updates.num_samples.tolist() == [7, 30, 16, 24]
    assert (updates.global_weights == state.weights).all()
    assert (updates.global_buffers == state.buffers).all()
    assert updates.weights.shape == (4, roster.spec.num_parameters)
    assert updates.buffers.shape == (4, roster.spec.num_buffers)
    assert (updates.norms > 0).all()


def test_each_client_trains_from_the_global_model_and_not_from_the_one_before(make_roster, ids):
    """Parameters, BatchNorm statistics and counters alike."""
    roster = make_roster(benign=Client)
    state = start(roster)
    together = copy(Inline(roster).train(Broadcast(1, state), ids))
    for row, client in enumerate(ids):
        alone = Inline(roster).train(Broadcast(1, state), (client,))
        assert (alone.weights[0] == together.weights[row]).all()
        assert (alone.buffers[0] == together.buffers[row]).all()
    counters = together.buffers[:, roster.spec.counters]
    # 7, 30, 16 and 24 samples in batches of 8, twice; no batch of one sample beside others
    assert counters[:, 0].tolist() == [2, 8, 4, 6]


def test_the_order_of_the_clients_is_of_no_consequence(make_roster, ids):
    roster = make_roster()
    state = start(roster)
    forth = copy(Inline(roster).train(Broadcast(1, state), ids))
    back = Inline(roster).train(Broadcast(1, state), ids[::-1])
    assert (forth.weights == back.weights.flip(0)).all()
    assert (forth.buffers == back.buffers.flip(0)).all()


def test_rounds_and_seeds_draw_other_numbers(make_roster, ids):
    roster = make_roster(benign=Client)
    state = start(roster)
    first = copy(Inline(roster).train(Broadcast(1, state), ids))
    assert (first.weights == Inline(roster).train(Broadcast(1, state), ids).weights).all()
    assert (first.weights != Inline(roster).train(Broadcast(2, state), ids).weights).any(1).all()
    other = make_roster({"settings.seed": 2}, benign=Client)
    assert (first.weights != Inline(other).train(Broadcast(1, state), ids).weights).any(1).all()


def test_the_number_of_threads_and_the_global_stream_are_of_no_consequence(make_roster, ids):
    roster = make_roster()
    state = start(roster)
    first = copy(Inline(roster).train(Broadcast(1, state), ids))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        torch.rand(3)
        stream = torch.get_rng_state()
        again = Inline(roster).train(Broadcast(1, state), ids)
        assert torch.get_num_threads() == threads + 1
        assert (torch.get_rng_state() == stream).all()
    finally:
        torch.set_num_threads(threads)
    assert (again.weights == first.weights).all()


def test_a_client_keeps_its_own_memory_and_sees_the_global_model_of_before(make_roster, ids):
    roster = make_roster()
    state = start(roster)
    engine = Inline(roster)
    for number in (1, 2, 3):
        engine.train(Broadcast(number, state), (0, number))
    assert {client: memory["seen"].item() for client, memory in engine.memory.items()} == {
        0: 3.0,
        1: 1.0,
        2: 1.0,
        3: 1.0,
    }
    without = Inline(roster).train(Broadcast(1, state), (0,)).weights.clone()
    previous = torch.full_like(state.weights, 0.5)
    with_previous = Inline(roster).train(Broadcast(1, state, previous), (0,)).weights
    moved = (with_previous - without)[0]
    assert moved.abs().max().item() == pytest.approx(0.5)
    assert moved.abs()[100:].max() == 0  # the first parameter's tensor alone


def test_an_error_in_a_client_comes_through_as_it_is(make_roster, odd_clients, ids):
    roster = make_roster()
    with pytest.raises(ValueError, match="the lens cap is on"):
        Inline(roster).train(Broadcast(odd_clients.FAILS, start(roster)), ids)


@pytest.mark.parametrize(
    ("changes", "chosen"),
    [
        ({"engine": "inline"}, "inline"),
        ({"engine": "pool"}, "pool"),
        ({"engine": "auto", "workers": 4}, "pool"),
        ({"engine": "auto", "workers": 1}, "inline"),
        ({"engine": "auto", "workers": 8, "num_parallel_max": 1}, "inline"),
        ({"engine": "auto", "workers": 1, "parallel_client_training": True}, "pool"),
    ],
)
@pytest.mark.usefixtures("importable_main")
def test_auto_is_the_pool_where_there_is_more_than_one_worker(make_roster, changes, chosen):
    roster = make_roster({f"settings.{name}": value for name, value in changes.items()})
    assert choose_engine(roster) == chosen


def test_auto_is_inline_for_a_single_client_and_on_another_device(make_roster):
    changes = {"settings.engine": "auto", "settings.workers": 4}
    assert choose_engine(make_roster({**changes, "federation.round_size": 1})) == "inline"
    roster = replace(make_roster(changes), device=torch.device("cuda"))
    assert choose_engine(roster) == "inline"


def test_workers_are_as_many_as_asked_for_but_never_more_than_the_limit(make_roster):
    def workers(**values):
        return worker_count(replace(make_roster().config.settings, **values))

    assert workers(workers=3, num_parallel_max=16) == 3
    assert workers(workers=64, num_parallel_max=16) == 16
    assert 1 <= workers(workers=0) <= 16


def test_engines_are_opened_by_name(make_roster):
    assert set(ENGINES) >= {"inline", "pool"}
    with open_engine(make_roster()) as engine:
        assert isinstance(engine, Inline)
