import logging

import pytest

from entity.engine.schedule import Turn, Turns


def test_rows_begin_in_the_order_that_is_given():
    turns = Turns((7, 3, 5), [2, 0, 1], {})
    assert [turns.take() for _ in range(4)] == [Turn(2, 5), Turn(0, 7), Turn(1, 3), None]
    assert not turns.over


def test_what_clients_remember_is_kept_and_nothing_else(caplog):
    memory = {3: {"seen": "before"}, 7: {"seen": "before"}}
    turns = Turns((7, 3), [0, 1], memory)
    turns.book(turns.take(), {"seen": "now"})
    turns.book(turns.take(), {})
    assert memory == {7: {"seen": "now"}, 3: {"seen": "before"}}
    assert turns.over


def test_rows_are_delivered_in_order_whoever_is_done_first():
    delivered = []
    turns = Turns((0, 1, 2), [0, 1, 2], {}, delivered.append)
    first, second, third = (turns.take() for _ in range(3))
    turns.book(third, {})
    turns.book(first, {})
    assert delivered == [0]
    turns.book(second, {})
    assert delivered == [0, 1, 2]


def test_no_more_rows_are_begun_than_there_are_places():
    turns = Turns((0, 1, 2, 3), [0, 1, 2, 3], {}, window=2)
    first, second = turns.take(), turns.take()
    assert turns.take() is None
    turns.book(second, {})
    assert turns.take() is None  # row 0 is not delivered, so its place is not free
    turns.book(first, {})
    assert [turns.take().row, turns.take().row] == [2, 3]


def test_a_lost_client_is_tried_once_more_and_then_spoilt(caplog):
    spoilt = []
    turns = Turns((0, 9), [0, 1], {})
    turn, other = turns.take(), turns.take()
    with caplog.at_level(logging.WARNING, "entity"):
        turns.lost(other, "worker", "exit 1", spoilt.append)
        assert turns.take() == other
        turns.lost(other, "worker", "exit 2", spoilt.append)
    assert spoilt == [1]
    assert caplog.messages == [
        "client 9: its worker died (exit 1); trying once more",
        "client 9: its worker died again (exit 2); refused",
    ]
    turns.book(turn, {})
    assert turns.over


def test_an_error_is_raised_with_its_traceback():
    turns = Turns((4,), [0], {})
    with pytest.raises(RuntimeError, match="client 4 failed in a worker:\nTraceback"):
        turns.book(turns.take(), "Traceback ...")
