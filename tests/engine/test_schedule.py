import logging

import pytest

from entity.engine.schedule import Schedule, Task


def test_rows_begin_in_the_order_that_is_given():
    schedule = Schedule((7, 3, 5), [2, 0, 1], {})
    assert [schedule.take() for _ in range(4)] == [Task(2, 5), Task(0, 7), Task(1, 3), None]
    assert not schedule.done


def test_what_clients_remember_is_kept_and_nothing_else(caplog):
    memory = {3: {"seen": "before"}, 7: {"seen": "before"}}
    schedule = Schedule((7, 3), [0, 1], memory)
    schedule.complete(schedule.take(), {"seen": "now"})
    schedule.complete(schedule.take(), {})
    assert memory == {7: {"seen": "now"}, 3: {"seen": "before"}}
    assert schedule.done


def test_rows_are_delivered_in_order_whoever_is_done_first():
    delivered = []
    schedule = Schedule((0, 1, 2), [0, 1, 2], {}, delivered.append)
    first, second, third = (schedule.take() for _ in range(3))
    schedule.complete(third, {})
    schedule.complete(first, {})
    assert delivered == [0]
    schedule.complete(second, {})
    assert delivered == [0, 1, 2]


def test_no_more_rows_are_begun_than_there_are_places():
    schedule = Schedule((0, 1, 2, 3), [0, 1, 2, 3], {}, window=2)
    first, second = schedule.take(), schedule.take()
    assert schedule.take() is None
    schedule.complete(second, {})
    assert schedule.take() is None  # row 0 is not delivered, so its place is not free
    schedule.complete(first, {})
    assert [schedule.take().row, schedule.take().row] == [2, 3]


def test_a_lost_client_is_tried_once_more_and_then_never_delivered(caplog):
    delivered = []
    schedule = Schedule((0, 9), [0, 1], {}, delivered.append)
    task, other = schedule.take(), schedule.take()
    with caplog.at_level(logging.WARNING, "entity"):
        schedule.lost(other, "worker", "exit 1")
        assert schedule.take() == other
        schedule.lost(other, "worker", "exit 2")
    assert caplog.messages == [
        "client 9: its worker died (exit 1); trying once more",
        "client 9: its worker died again (exit 2); it is missing from this round",
    ]
    schedule.complete(task, {})
    assert schedule.done
    assert delivered == [0]
    assert not schedule.all_lost


def test_a_round_without_any_model_is_known():
    schedule = Schedule((9,), [0], {})
    for _ in range(2):
        schedule.lost(schedule.take(), "worker", "exit 1")
    assert schedule.done
    assert schedule.all_lost


def test_an_error_is_raised_with_its_traceback():
    schedule = Schedule((4,), [0], {})
    with pytest.raises(RuntimeError, match="client 4 failed in a worker:\nTraceback"):
        schedule.complete(schedule.take(), "Traceback ...")
