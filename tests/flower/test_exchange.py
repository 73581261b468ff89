"""Sending and collecting: one reply at a time, nobody waited for too long, errors with a name."""

import threading
from time import sleep as wait

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


def failing(code, until=0.0, time=None):
    """A reply that the SuperLink answers with an HTTP error, until some time."""
    httpx = pytest.importorskip("httpx")
    request = httpx.Request("POST", "http://superlink/pull")

    def fail(message):
        if time is not None and time.now > until:
            return prompt(message)
        return httpx.HTTPStatusError(
            "failed", request=request, response=httpx.Response(code, request=request)
        )

    return fail


def test_a_reply_over_which_the_superlink_fails_is_an_error_of_its_node(make_grid):
    time = Time()
    replies = ask(make_grid({1: failing(500), 2: prompt, 3: prompt}), 1000.0, time)
    reasons = {r.metadata.src_node_id: r.has_error() and r.error.reason for r in replies}
    assert reasons == {1: "the SuperLink fails over its reply (HTTP 500)", 2: False, 3: False}
    assert len(replies) == 3
    assert time.now < 10  # it is not asked for that to the end
    (reply,) = ask(make_grid({1: failing(500)}), 0.0)  # nor where time is up at once
    assert reply.has_error()


def test_a_superlink_that_failed_once_is_asked_again(make_grid):
    time = Time()
    replies = ask(make_grid({1: failing(500, 0.15, time), 2: prompt}), 1000.0, time)
    assert {r.metadata.src_node_id: r.has_error() for r in replies} == {1: False, 2: False}


def test_other_answers_of_the_superlink_are_raised(make_grid):
    httpx = pytest.importorskip("httpx")
    with pytest.raises(httpx.HTTPStatusError):
        ask(make_grid({1: failing(403), 2: prompt}))


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


def impatient(monkeypatch, seconds):
    monkeypatch.setattr("entity.flower.exchange.PATIENCE", seconds)


def test_a_reply_in_another_node_s_name_is_an_error_of_the_node_that_was_asked(make_grid):
    def forged(message):
        reply = prompt(message)
        reply.metadata.__dict__["_src_node_id"] = 1
        return reply

    first, second = ask(make_grid({1: prompt, 2: forged}))
    assert (first.metadata.src_node_id, second.metadata.src_node_id) == (1, 2)
    assert not first.has_error()
    assert second.error.reason == "a reply in the name of another node"


def test_a_reply_that_is_announced_and_never_sent_costs_nobody_else_the_round(
    make_grid, monkeypatch
):
    impatient(monkeypatch, 0.2)
    released, time = threading.Event(), Time()

    def announced(message):
        released.wait()
        return prompt(message)

    def late(message):
        return prompt(message) if time.now >= 10 else None  # in the last look

    grid = make_grid({1: announced, 2: prompt, 3: announced, 4: late})
    try:
        replies = ask(grid, 10.0, time)
    finally:
        released.set()
    assert [reply.metadata.src_node_id for reply in replies] == [2, 4]
    assert time.now == pytest.approx(10.0)


def test_what_was_there_in_time_is_taken_however_long_the_pulls_take(make_grid, monkeypatch):
    impatient(monkeypatch, 0.3)
    time, ready = Time(), 8.0

    def large(message):
        if time.now < ready:
            return None
        wait(0.15)
        return prompt(message)

    replies = ask(make_grid(dict.fromkeys(range(1, 7), large)), 10.0, time)
    assert len(replies) == 6  # together they take three times as long as one is waited for


def test_a_large_model_is_waited_for_longer(make_grid, monkeypatch):
    impatient(monkeypatch, 0.05)
    released = threading.Event()

    def slow(message):
        wait(0.4)
        return prompt(message)

    def found(most):
        grid = make_grid({1: slow, 2: lambda message: released.wait() and None})
        messages = [Message(RecordDict(), node, "train") for node in (1, 2)]
        return len(list(exchange(grid, messages, 0.0, most=most)))

    try:
        assert found(1000) == 0
        assert found(int(10e6)) == 1
    finally:
        released.set()


def test_a_slow_pull_is_taken_when_it_is_done(make_grid, monkeypatch):
    impatient(monkeypatch, 0.05)
    time, there = Time(), threading.Event()

    def slow(message):
        there.wait()
        return prompt(message)

    def sleep(seconds):
        time.sleep(seconds)
        if time.now > 5:
            there.set()
            wait(0.05)

    messages = [Message(RecordDict(), node, "train") for node in (1, 2)]
    grid = make_grid({1: slow, 2: prompt})
    replies = list(exchange(grid, messages, 60.0, clock=lambda: time.now, sleep=sleep))
    assert [reply.metadata.src_node_id for reply in replies] == [2, 1]
    assert time.now < 60
