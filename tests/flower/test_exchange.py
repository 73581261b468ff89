"""Sending and collecting: one reply at a time, nobody waited for too long, errors with a name."""

import pytest

pytest.importorskip("flwr.serverapp")
from flwr.app import Error, Message, RecordDict

from entity.flower.exchange import LONGEST_PAUSE, exchange


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def ask(grid, timeout=10.0, time=None):
    time = time or Time()
    messages = [Message(RecordDict(), node, "train") for node in grid.nodes]
    return list(exchange(grid, messages, timeout, clock=lambda: time.now, sleep=time.sleep))


def prompt(message):
    return Message(RecordDict(), reply_to=message)


def test_a_silent_node_is_waited_for_until_time_is_up_and_not_longer(make_grid):
    time = Time()
    replies = ask(make_grid({1: prompt, 2: lambda message: None}), 10.0, time)
    assert [reply.metadata.src_node_id for reply in replies] == [1]
    assert time.now == pytest.approx(10.0)
    assert max(time.pauses) <= LONGEST_PAUSE


def test_a_late_reply_within_the_time_is_taken(make_grid):
    time = Time()

    def late(message):
        return prompt(message) if time.now > 5 else None

    replies = ask(make_grid({1: prompt, 2: late}), 10.0, time)
    assert [reply.metadata.src_node_id for reply in replies] == [1, 2]
    assert time.now < 9


def test_nobody_is_waited_for_when_all_have_answered(make_grid):
    time = Time()
    assert len(ask(make_grid({1: prompt, 2: prompt}), 10.0, time)) == 2
    assert time.now == 0


def test_what_cannot_be_decoded_is_an_error_of_its_sender_alone(make_grid):
    first, second = ask(make_grid({1: lambda message: KeyError("x"), 2: prompt}))
    assert first.metadata.src_node_id == 1
    assert first.error.reason == "cannot be decoded (KeyError)"
    assert not second.has_error()


def test_a_lost_connection_is_raised(make_grid):
    httpx = pytest.importorskip("httpx")
    with pytest.raises(httpx.ConnectError):
        ask(make_grid({1: lambda message: httpx.ConnectError("gone"), 2: prompt}))


def test_an_error_that_flower_reports_in_its_own_name_is_put_down_to_the_node(make_grid):
    def unavailable(message):
        reply = Message(Error(5, "node unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    (reply,) = ask(make_grid({77: unavailable}))
    assert reply.metadata.src_node_id == 77
    assert reply.error.reason == "node unavailable"


def test_a_message_that_cannot_be_sent_is_an_error_of_its_node(make_grid, monkeypatch):
    grid = make_grid({1: prompt, 2: prompt})
    push = grid.push_messages

    def lossy(messages):
        first, *_ = push(messages)
        return [first, None]

    monkeypatch.setattr(grid, "push_messages", lossy)
    replies = {reply.metadata.src_node_id: reply for reply in ask(grid)}
    assert replies[2].error.reason == "could not be sent"
    assert not replies[1].has_error()
