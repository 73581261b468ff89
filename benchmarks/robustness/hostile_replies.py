"""What a hostile node may send: arrays that are no update, or another message altogether."""

from collections.abc import Callable
from random import Random
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from loopback import Federation, Node

from robustness.hostile_arrays import CHANGES, LONG, NAMES, Change


def hostile_node(rng: Random, federation: Federation) -> tuple[str, Node]:
    """Return a random hostile node, and its name."""
    if rng.random() < 0.7:
        changes = rng.choices(CHANGES, k=rng.choice([1, 1, 2]))
        node = _changed(Random(rng.random()), federation, changes)
        return " and ".join(change.__name__ for change in changes), node
    make = rng.choice(MESSAGES)
    seed = rng.random()
    return make.__name__, lambda message: make(Random(seed), federation, message)


def _changed(rng: Random, federation: Federation, changes: list[Change]) -> Node:
    def answer(message: Message) -> Message:
        arrays = federation.layout.write(federation.moved(message.metadata.dst_node_id))
        for change in changes:
            if len(arrays):
                change(rng, arrays)
        return federation.reply(message, arrays, rng.choice(COUNTS))

    return answer


COUNTS = (10, 10, 10, 10, 1, 10**9, 1e308, 5e-324)
"""Numbers of samples that can be believed."""


def bad_counts(rng: Random, federation: Federation, message: Message) -> Message:
    bad: list[Any] = [-1, 0, -0.0, float("nan"), float("inf"), -float("inf"), [3], [], [1.5, 2.0]]
    return federation.reply(message, _sound(federation, message), rng.choice(bad))


def other_metrics(rng: Random, federation: Federation, message: Message) -> Message:
    """Send texts where numbers belong, no metrics, or a great many."""
    content = RecordDict({"arrays": _sound(federation, message)})
    texts = ConfigRecord({"num-examples": rng.choice(["ten", LONG, b"\xff", True, ["a"]])})
    many = MetricRecord({f"m{i}{LONG[:20]}": float(i) for i in range(3000)})
    metrics = rng.choice([None, texts, MetricRecord(), many, MetricRecord({LONG: 1})])
    if metrics is not None:
        content["metrics"] = metrics
    return Message(content, reply_to=message)


def other_records(rng: Random, federation: Federation, message: Message) -> Message:
    arrays = _sound(federation, message)
    names = rng.choice([[], ["Arrays"], ["arrays", "more"], list(NAMES), ["metrics"]])
    return Message(RecordDict(dict.fromkeys(names, arrays)), reply_to=message)


def no_arrays(rng: Random, federation: Federation, message: Message) -> Message:
    records = [ConfigRecord({"a": LONG}), MetricRecord({"a": 1}), ArrayRecord()]
    return Message(RecordDict({"arrays": rng.choice(records)}), reply_to=message)


def no_content(rng: Random, federation: Federation, message: Message) -> Message:
    reply = Message(RecordDict(), reply_to=message)
    reply.__dict__["_content"] = rng.choice([None, RecordDict()])
    return reply


def error(rng: Random, federation: Federation, message: Message) -> Message:
    reason = rng.choice(["", "\n", LONG, "\x1b[2J\x07", "a\nb\rc", "\u202e" * 200, "%s %d {}"])
    return Message(Error(rng.choice([0, 2, -1, 10**9]), reason), reply_to=message)


def undecodable(rng: Random, federation: Federation, message: Message) -> Exception:
    kinds = [TypeError, ValueError, KeyError, RuntimeError, MemoryError, RecursionError]
    return rng.choice(kinds)(LONG)


def silence(rng: Random, federation: Federation, message: Message) -> None:
    return None


def in_another_name(rng: Random, federation: Federation, message: Message) -> Message:
    reply = federation.reply(message, _sound(federation, message))
    reply.metadata.__dict__["_src_node_id"] = rng.choice([5, 99, 0, -1, 2**64])
    return reply


MESSAGES: list[Callable[[Random, Federation, Message], Message | Exception | None]] = [
    *(bad_counts, bad_counts, other_metrics, other_records, no_arrays, no_content),
    *(error, undecodable, silence, in_another_name),
]


def _sound(federation: Federation, message: Message) -> ArrayRecord:
    return federation.layout.write(federation.moved(message.metadata.dst_node_id))
