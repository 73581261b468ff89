"""One cache on disk: a header and four npy files, written whole and mapped by every process."""

import contextlib
import hashlib
import json
import logging
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from entity.config import schema
from entity.dataset.decoded import Decoded, Samples
from entity.dataset.images import Images
from entity.reading import open_regular, parse_json, read_bytes

log = logging.getLogger("entity")

FORMAT = 1
"""Version of the layout; caches of another one are not read."""
PATIENCE = 3.0
"""Seconds of decoding between two lines that say how far it is."""

Parts = tuple[Images, Images]
"""Training and test images."""


@dataclass(frozen=True)
class Contents:
    """What one part of a cache holds."""

    shape: tuple[int, ...]
    """(N, C, H, W), or (N, ...) of other samples."""
    counts: tuple[int, ...]
    """Images of each class."""
    sha256: str
    """Of the pixels, N C H W bytes in order."""
    dtype: Literal["uint8", "float32", "int64"] = "uint8"


@dataclass(frozen=True)
class Header:
    """The header of a cache."""

    format: int
    fingerprint: str
    train: Contents
    test: Contents
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    """Of a data set of one's own: its classes and the like."""


@dataclass(frozen=True, eq=False)
class Mapped(Images):
    """Images of a cache. Other processes are sent the path and map the same memory.

    Pixels that are written to are copied first: nothing changes the file.
    """

    folder: Path
    part: str
    recorded: str
    """SHA-256 of the pixels when they were written."""

    def known_sha256(self) -> str:
        """Return the hash that the header has recorded."""
        return self.recorded

    def share_memory(self) -> "Mapped":
        """Return the images, which all processes share anyway."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _map, (self.folder, self.part, self.recorded)


def _map(folder: Path, part: str, recorded: str) -> Mapped:
    for name in "xy":
        open_regular(folder / f"{part}-{name}.npy").close()  # the map would wait for a pipe
    x: Samples = np.load(folder / f"{part}-x.npy", mmap_mode="c")
    y: NDArray[np.int64] = np.load(folder / f"{part}-y.npy", mmap_mode="c")
    return Mapped(torch.from_numpy(x), torch.from_numpy(y), folder, part, recorded)


def open_cache(folder: Path) -> Parts | None:
    """Map the images of one cache; None if it is missing, of another format or damaged."""
    header = header_of(folder)
    if header is None or header.format != FORMAT or not folder.name.endswith(header.fingerprint):
        return None
    try:
        train = _map(folder, "train", header.train.sha256)
        test = _map(folder, "test", header.test.sha256)
    except (OSError, ValueError, EOFError, TypeError):
        return None
    for images, contents in ((train, header.train), (test, header.test)):
        counts = len(contents.counts)
        if (
            images.x.dtype != getattr(torch, contents.dtype)
            or tuple(images.x.shape) != contents.shape
            or images.y.dtype != torch.int64
            or images.y.shape != images.x.shape[:1]
            or not bool(((images.y >= 0) & (images.y < counts)).all())
            or tuple(torch.bincount(images.y, minlength=counts).tolist()) != contents.counts
        ):
            return None
    return replace(train, facts=header.facts), test


def header_of(folder: Path) -> Header | None:
    """Read the header of a cache; None if it is missing or damaged."""
    try:
        return schema.load(Header, parse_json(read_bytes(folder / "header.json")))
    except (OSError, ValueError):  # a ConfigError is a ValueError
        return None


def write(folder: Path, key: str, mark: str, parts: Sequence[Decoded]) -> None:
    """Decode images into the files of a cache, and force them to the disk.

    Parameters
    ----------
    folder
        An empty folder.
    key
        The data set's name, for progress.
    mark
        The fingerprint of its source.
    parts
        The training and the test images.
    """
    progress = _Progress(key, sum(part.shape[0] for part in parts), parts[0].kind)
    contents: list[Contents] = []
    for name, part in zip(("train", "test"), parts, strict=True):
        digest = hashlib.sha256()
        with _synced(folder / f"{name}-x.npy") as file:
            layout = {
                "descr": np.dtype(part.dtype).str,
                "fortran_order": False,
                "shape": part.shape,
            }
            np.lib.format.write_array_header_1_0(file, layout)
            for batch in progress(part.batches()):
                digest.update(batch.data)
                file.write(batch.data)
        with _synced(folder / f"{name}-y.npy") as file:
            np.save(file, part.y)
        counts = tuple(int(count) for count in np.bincount(part.y))
        contents.append(Contents(part.shape, counts, digest.hexdigest(), _dtype(part.dtype)))
    with _synced(folder / "header.json") as file:
        header = Header(FORMAT, mark, *contents, facts=dict(parts[0].facts))
        file.write(json.dumps(schema.dump(header), indent=2).encode())
    sync_folder(folder)


def _dtype(name: str) -> Literal["uint8", "float32", "int64"]:
    return "uint8" if name == "uint8" else "int64" if name == "int64" else "float32"


@contextlib.contextmanager
def _synced(path: Path) -> Generator[Any]:
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Force the names in a folder to the disk, where the file system can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class _Progress:
    """Says how many images are decoded: at most ten times, and not of what is quick."""

    def __init__(self, key: str, total: int, kind: str) -> None:
        self.key, self.total, self.kind, self.done, self.tenths = key, total, kind, 0, 0
        self.said = time.monotonic()

    def __call__(self, batches: Iterable[Samples]) -> Iterator[Samples]:
        for batch in batches:
            yield batch
            self.done += len(batch)
            tenths = 10 * self.done // self.total
            if tenths > self.tenths and time.monotonic() - self.said > PATIENCE:
                self.tenths, self.said = tenths, time.monotonic()
                done, total = f"{self.done:,}", f"{self.total:,}"
                log.info("%s: %s of %s %s decoded", self.key, done, total, self.kind)
