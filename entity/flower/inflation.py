"""A bound on what Flower makes of a reply's bytes, before it takes the memory.

A node lists the chunks that an array is joined of, and may name one any number of times: a
megabyte that was sent becomes gigabytes. Flower joins them while it pulls the reply, before a
strategy sees anything, so the bound stands where it joins.
"""

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import Array

from entity.flower.arrays import Malformed

_room = threading.local()
"""`bytes` that arrays may still take in this thread; nothing where there is no bound."""

_join = Array.inflate.__func__  # pyright: ignore[reportFunctionMemberAccess]


@contextmanager
def at_most(size: int) -> Generator[None]:
    """Let the arrays that Flower joins in this thread take so many bytes in all.

    Raises
    ------
    Malformed
        In the body, before an array is joined that would take more.
    """
    _room.bytes = size
    try:
        yield
    finally:
        del _room.bytes


def joined_size(content: bytes, children: Mapping[str, Any]) -> int:
    """Return how many bytes an array takes once it is joined.

    Parameters
    ----------
    content
        The array as Flower sends it: its kind, the ids of its chunks and the body's length, then
        a body that says in which order the chunks are joined.
    children
        The chunks by their ids.
    """
    head, _, body = content.partition(b"\0")
    ids = head.decode().split(" ")[1].split(",")
    order = json.loads(body)["arraychunk_ids"]
    sizes = [len(children[each].data) for each in ids] if order else []
    return sum(sizes[index] for index in order)


def _inflate(
    cls: type[Array], object_content: bytes, children: dict[str, Any] | None = None
) -> Array:
    if (left := getattr(_room, "bytes", None)) is not None:
        _room.bytes = left - joined_size(object_content, children or {})
        if _room.bytes < 0:
            raise Malformed("arrays of more bytes than the model has")
    return _join(cls, object_content, children)


Array.inflate = classmethod(_inflate)  # pyright: ignore[reportAttributeAccessIssue]
