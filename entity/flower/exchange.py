"""Sending the global model and receiving the replies, one at a time as they arrive.

Flower's `send_and_receive` pulls all replies together: all are in memory at once, and one that
cannot be decoded raises an error that loses the others. Pulled one by one, each is read into the
round's matrix and freed, and a broken one costs only its sender.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence

import httpx
from flwr.app import Error, Message
from flwr.serverapp import Grid

log = logging.getLogger("entity")

LONGEST_PAUSE = 3.0
"""Longest time between two looks for replies, in seconds; the first looks follow sooner."""

_OURS = (OSError, httpx.HTTPError)
"""Errors of the connection to the SuperLink, which no node can cause."""


def exchange(
    grid: Grid,
    messages: Sequence[Message],
    timeout: float,
    *,
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
        Seconds to wait for the last reply.
    clock, sleep
        Time in seconds.

    Yields
    ------
    Message
        A reply; where it could not be sent or decoded, an error in the node's name.
    """
    if not messages:
        return
    taken = set(grid.push_messages(messages))
    waiting: dict[str, Message] = {}
    for message in messages:
        if message.metadata.message_id in taken:
            waiting[message.metadata.message_id] = message
        else:
            yield _error(message, "could not be sent")
    end, pause = clock() + timeout, 0.1
    while waiting:
        before = len(waiting)
        for identity, message in list(waiting.items()):
            try:
                replies = list(grid.pull_messages([identity]))
            except Exception as error:  # whatever a peer's bytes may raise
                if isinstance(error, _OURS):
                    raise
                replies = [_error(message, f"cannot be decoded ({type(error).__name__})")]
            if replies:
                del waiting[identity]
            for reply in replies:
                # Flower reports some errors in its own name instead of the node's.
                named = reply.has_error() and (
                    reply.metadata.src_node_id != message.metadata.dst_node_id
                )
                yield _error(message, reply.error.reason or "") if named else reply
        if not waiting or clock() >= end:
            return
        pause = 0.1 if len(waiting) < before else min(2 * pause, LONGEST_PAUSE)
        sleep(min(pause, max(0.0, end - clock())))


def _error(message: Message, reason: str) -> Message:
    return Message(Error(code=0, reason=reason), reply_to=message)
