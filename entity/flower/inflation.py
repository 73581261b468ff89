"""A bound on what a reply takes of the server's memory while Flower pulls and joins it.

A node may send objects that no reply has: records beside its model, or chunks that no array names.
And it lists the chunks that an array is joined of, and may name one any number of times: a megabyte
that was sent becomes gigabytes. Flower does all that before a strategy sees anything. So bytes are
counted where objects come from the SuperLink, where arrays are joined, and where records are read.
"""

import json
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import Array, ConfigRecord, MetricRecord
from flwr.superlink.grid import http_grid

from entity.flower.arrays import Malformed

BESIDE = 1 << 20
"""Bytes that metrics, settings, and the lists of what belongs to what may take beside arrays."""

_current = threading.local()
"""`room` of the reply that is pulled in this thread; nothing where there is no bound."""


_SAID = {
    "pulled": "more bytes than the model has",
    "joined": "arrays of more bytes than the model has",
    "records": f"records of more than {BESIDE} bytes beside its arrays",
}
"""What is said of a reply, by what there was too much of."""


class _Room:
    """What a reply may still take: of bytes that are pulled, joined, and read as records."""

    def __init__(self, arrays: int) -> None:
        self._left = {"pulled": arrays + BESIDE, "joined": arrays, "records": BESIDE}
        self._lock = threading.Lock()  # Flower pulls several objects of a reply at once

    def take(self, what: str, size: int) -> None:
        """Count bytes.

        Raises
        ------
        Malformed
            If there is no room for them.
        """
        with self._lock:
            self._left[what] -= size
            if self._left[what] < 0:
                raise Malformed(_SAID[what])


@contextmanager
def at_most(size: int) -> Generator[None]:
    """Bound what Flower pulls in this thread: so many bytes of arrays, and `BESIDE` of the rest.

    Raises
    ------
    Malformed
        In the body, as soon as there is more; what takes memory then is no more than the bound and
        the object that was beyond it.
    """
    _current.room = _Room(size)
    try:
        yield
    finally:
        del _current.room


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


def _length(content: bytes, children: Mapping[str, Any]) -> int:
    return len(content)


def _counted(
    cls: type[Any], what: str, size: Callable[[bytes, Mapping[str, Any]], int]
) -> "classmethod[Any, Any, Any]":
    """Return a class method `inflate` that counts what it makes of an object's bytes."""
    inflate = cls.inflate.__func__

    def counted(
        cls: type[Any], object_content: bytes, children: dict[str, Any] | None = None
    ) -> Any:
        if (room := _room()) is not None:
            room.take(what, size(object_content, children or {}))
        return inflate(cls, object_content, children)

    return classmethod(counted)


def _pulls(*given: Any, **named: Any) -> Callable[[str], bytes]:
    """Return Flower's function that pulls an object by its id, counting what it pulls."""
    pull, room = _make_pull(*given, **named), _room()

    def counted(object_id: str) -> bytes:  # in a thread of Flower's
        content = pull(object_id)
        if room is not None:
            room.take("pulled", len(content))
        return content

    return counted


def _room() -> _Room | None:
    return getattr(_current, "room", None)


_make_pull = http_grid.make_pull_object_fn_protobuf  # pyright: ignore[reportPrivateImportUsage]
http_grid.make_pull_object_fn_protobuf = _pulls  # pyright: ignore[reportPrivateImportUsage]
for _class, _what, _size in (
    (Array, "joined", joined_size),
    (ConfigRecord, "records", _length),
    (MetricRecord, "records", _length),
):
    _class.inflate = _counted(_class, _what, _size)  # pyright: ignore[reportAttributeAccessIssue]
