"""Sending the global model and receiving the replies, one at a time as they arrive.

Flower's `send_and_receive` pulls all replies together: all are in memory at once, and one that
cannot be decoded raises an error that loses the others. Pulled one by one, each is read into the
round's matrix and freed, and a broken one costs only its sender.

Three things a node must not have: another node's name, which Flower takes from the bytes of a
reply; the time of the others, which it would have by announcing a reply and not sending it, as
Flower then waits for hours; and the server's memory (`inflation`).
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from http import HTTPStatus

import httpx
from flwr.app import Error, Message
from flwr.serverapp import Grid

from entity.flower.arrays import Malformed
from entity.flower.inflation import at_most

log = logging.getLogger("entity")

LONGEST_PAUSE = 3.0
"""Longest time between two looks for replies, in seconds; the first looks follow sooner."""

PATIENCE = 10.0
"""Least seconds to wait for a reply that is announced and not there, before the next is looked for.

With every one that is still not there, the next has a smaller part of them.
"""

SLOWEST = 10e6
"""Bytes a second at which a reply comes from the SuperLink at least: a large model has longer."""

TRIES = 3
"""Times that the SuperLink is asked for a reply over which it fails."""

_OURS = (OSError, httpx.HTTPError)
"""Errors of the connection to the SuperLink, which no node can cause; but see `_failed_over`."""


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    timeout: float,
    *,
    most: int | None = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Message]:
    """Send messages and yield each node's reply until all are in or time is up.

    Parameters
    ----------
    grid
        Flower's connection to the nodes.
    messages
        One for each node.
    timeout
        Seconds to wait for the last reply. What has reached the SuperLink by then is still pulled.
    most
        Bytes that the arrays of a reply may take; None for any number.
    clock, sleep
        Time in seconds.

    Yields
    ------
    Message
        A reply; where it could not be sent or decoded, or is in another node's name, an error in
        the name of the node that was asked.
    """
    if not messages:
        return
    taken = set(grid.push_messages(messages))
    unsent = [each for each in messages if each.metadata.message_id not in taken]
    yield from (_error(each, "could not be sent") for each in unsent)
    waiting = {
        each.metadata.message_id: each for each in messages if each.metadata.message_id in taken
    }
    pulls, failures = dict[str, _Pull](), Counter[str]()
    patience = max(PATIENCE, (most or 0) / SLOWEST)
    end, pause = clock() + timeout, 0.1
    while waiting:
        before, last = len(waiting), clock() >= end
        for identity, message in list(waiting.items()):
            if identity not in pulls:
                pulls[identity] = _Pull(grid, identity, most)
                pulls[identity].wait(patience / len(pulls))
            if not pulls[identity].is_done:
                continue
            failures[identity] += pulls[identity].failed
            final = last or failures[identity] >= TRIES
            if replies := pulls.pop(identity).replies(message, final=final):
                del waiting[identity]
                yield from replies
        if last:
            yield from _last_look(pulls, waiting, patience)
        if last or not waiting:
            return
        pause = 0.1 if len(waiting) < before else min(2 * pause, LONGEST_PAUSE)
        sleep(min(pause, max(0.0, end - clock())))


def _last_look(
    pulls: Mapping[str, "_Pull"], waiting: Mapping[str, Message], patience: float
) -> Iterator[Message]:
    """Yield what of the looks that are still going on comes within one patience for all."""
    for identity, pull in pulls.items():
        patience = pull.wait(patience)
        if pull.is_done:
            yield from pull.replies(waiting[identity], final=True)


class _Pull:
    """A look for the reply to one message, in a thread that may be left behind."""

    def __init__(self, grid: Grid, identity: str, most: int | None) -> None:
        self._found: list[Message] = []
        self._error: BaseException | None = None
        self._done = threading.Event()
        threading.Thread(target=self._pull, args=(grid, identity, most), daemon=True).start()

    def _pull(self, grid: Grid, identity: str, most: int | None) -> None:
        try:
            with nullcontext() if most is None else at_most(most):
                self._found = list(grid.pull_messages([identity]))
        except BaseException as error:  # raised where the reply is waited for
            self._error = error
        self._done.set()

    @property
    def is_done(self) -> bool:
        """Whether there is an answer, be it that there is no reply yet."""
        return self._done.is_set()

    def wait(self, patience: float) -> float:
        """Wait for so many seconds at most; return what is left of them."""
        began = time.monotonic()
        self._done.wait(patience)
        return max(0.0, patience - (time.monotonic() - began))

    @property
    def failed(self) -> bool:
        """Whether the SuperLink failed over what it was to give."""
        return _failed_over(self._error)

    def replies(self, message: Message, *, final: bool) -> list[Message]:
        """Return what came in answer to a message; [] is nothing yet.

        Where the SuperLink failed over it that is an error of the node only if it is `final`.
        """
        if self._error is None:
            return [_attributed(reply, message) for reply in self._found]
        if self.failed:
            reason = "the SuperLink fails over its reply (HTTP 500)"
            return [_error(message, reason)] if final else []
        if isinstance(self._error, _OURS) or not isinstance(self._error, Exception):
            raise self._error
        what = str(self._error) if isinstance(self._error, Malformed) else ""
        return [_error(message, what or f"cannot be decoded ({type(self._error).__name__})")]


def _failed_over(error: BaseException | None) -> bool:
    """Whether the SuperLink, asked for one reply, came upon an error of its own.

    A node can bring that about: a time of NaN in a reply gets as far as the SuperLink's database.
    """
    return (
        isinstance(error, httpx.HTTPStatusError)
        and error.response.status_code == HTTPStatus.INTERNAL_SERVER_ERROR
    )


def _attributed(reply: Message, message: Message) -> Message:
    """Return a reply if it is in the name of the node that was asked, else an error of that node.

    Flower reports some errors in its own name. A reply with content in another name is forged: the
    name is part of what the node sends, and only the message it answers is sure.
    """
    if reply.metadata.src_node_id == message.metadata.dst_node_id:
        return reply
    if reply.has_error():
        return _error(message, reply.error.reason or "")
    return _error(message, "a reply in the name of another node")


def _error(message: Message, reason: str) -> Message:
    return Message(Error(code=0, reason=reason), reply_to=message)
