"""Data sets decoded once, into files that every process maps.

A cache is a folder `<data folder>/.drop-cache/<key>-<fingerprint>` of four npy files (pixels and
labels of the training and the test images) and a header. The fingerprint is of the source's
files, so a source that changes is decoded anew. A cache is written aside, synced and renamed:
whoever finds one finds it whole, and of two processes that decode at once the second takes what
the first has put there. Where the data folder cannot be written, caches lie in
`$XDG_CACHE_HOME/drop`; where that cannot be either, the images are decoded into memory.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entity.config import schema
from entity.dataset.images import Images

log = logging.getLogger("entity")

FOLDER = ".drop-cache"
"""Name of the folder of caches inside a data folder."""
FORMAT = 1
"""Version of the layout; caches of another one are not read."""
BATCH = 1000
"""Images that are decoded into memory at a time."""
PATIENCE = 3.0
"""Seconds of decoding between two lines that say how far it is."""
ABANDONED = 86_400.0
"""Seconds after which a folder that was being written is held to be left behind by a crash."""

Stamp = tuple[str, int, int]
"""Path below the source's folder, size in bytes, time of the last change in ns."""
Pixels = NDArray[np.uint8]
Parts = tuple[Images, Images]
"""Training and test images."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images on their way into a cache, a batch at a time."""

    shape: tuple[int, int, int, int]
    """(N, C, H, W)."""
    y: NDArray[np.int64]
    """(N,) classes."""
    batches: Callable[[], Iterable[Pixels]]
    """The N images in order, in pieces (n, C, H, W); every call begins anew."""

    @classmethod
    def of(cls, x: Pixels, y: NDArray[np.integer]) -> "Decoded":
        """Wrap images (N, C, H, W) that are in memory already."""
        n, channels, height, width = x.shape
        steps = range(0, n, BATCH)
        return cls(
            (n, channels, height, width),
            y.astype(np.int64),
            lambda: (np.ascontiguousarray(x[start : start + BATCH]) for start in steps),
        )

    def in_memory(self) -> Images:
        """Decode into memory."""
        x = np.empty(self.shape, dtype=np.uint8)
        start = 0
        for batch in self.batches():
            x[start : start + len(batch)] = batch
            start += len(batch)
        return Images(torch.from_numpy(x), torch.from_numpy(self.y))


@dataclass(frozen=True)
class Contents:
    """What one part of a cache holds."""

    shape: tuple[int, ...]
    """(N, C, H, W)."""
    counts: tuple[int, ...]
    """Images of each class."""
    sha256: str
    """Of the pixels, N C H W bytes in order."""


@dataclass(frozen=True)
class Header:
    """The header of a cache."""

    format: int
    fingerprint: str
    train: Contents
    test: Contents


@dataclass(frozen=True, eq=False)
class Mapped(Images):
    """Images of a cache. Other processes are sent the path and map the same memory.

    Pixels that are written to are copied first: nothing changes the file.
    """

    folder: Path
    part: str
    noted: str
    """The hash of the pixels when they were written."""

    def known_sha256(self) -> str:
        """Return the hash that the cache has noted."""
        return self.noted

    def share_memory(self) -> "Mapped":
        """Return the images, which all processes share anyway."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _map, (self.folder, self.part, self.noted)


def _map(folder: Path, part: str, noted: str) -> Mapped:
    x: Pixels = np.load(folder / f"{part}-x.npy", mmap_mode="c")
    y: NDArray[np.int64] = np.load(folder / f"{part}-y.npy", mmap_mode="c")
    return Mapped(torch.from_numpy(x), torch.from_numpy(y), folder, part, noted)


def fingerprint(recipe: str, stamps: Iterable[Stamp]) -> str:
    """Return 16 hex digits that change with the source's files and with how they are decoded."""
    digest = hashlib.sha256(f"{FORMAT}\0{recipe}\n".encode())
    for path, size, changed in stamps:
        digest.update(f"{path}\0{size}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def read(root: Path, key: str, mark: str, decode: Callable[[], Sequence[Decoded]]) -> Parts:
    """Map the training and the test images of a cache, making it first where there is none.

    Parameters
    ----------
    root
        The data folder.
    key
        Names the data set and how it is decoded, in characters of file names.
    mark
        The source's fingerprint.
    decode
        Opens the source: its training and its test images.
    """
    found = lookup(root, key, mark)
    if found is not None:
        return found
    parts = decode()
    if made := make(root, key, mark, parts):
        return made
    log.warning("%s: no place for a cache, neither in %s nor at home", key, root)
    train, test = (part.in_memory() for part in parts)
    return train, test


def lookup(root: Path, key: str, mark: str) -> Parts | None:
    """Map a cache that is there and undamaged."""
    for place in places(root):
        if found := open_(place / f"{key}-{mark}"):
            return found
    return None


def make(
    root: Path, key: str, mark: str, parts: Sequence[Decoded], *, anew: bool = False
) -> Parts | None:
    """Write a cache in the first place that takes it, and map it; None where no place does.

    Unless it is to be made `anew`, one that another process has put there meanwhile is taken.
    """
    for place in places(root):
        folder = place / f"{key}-{mark}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            with _aside(folder) as aside:
                _write(aside, key, mark, parts)
                _publish(aside, folder, anew)
            if found := open_(folder):
                log.info("%s: %s images decoded into %s", key, f"{_total(parts):,}", folder)
                _tidy(place, key, keep=folder.name)
                return found
        except OSError:  # read-only or full
            continue
    return None


def places(root: Path) -> list[Path]:
    """Return the folders that caches of a data folder may lie in, the first choice first."""
    found = [root / FOLDER] if root.is_dir() else []
    with contextlib.suppress(RuntimeError, OSError, ValueError):  # no home, or no path at all
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # Two data folders may hold different files under the same names.
        own = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
        found.append(home / "drop" / own)
    return found


def caches(root: Path) -> list[tuple[Path, int]]:
    """Return the caches of a data folder and the size of each in bytes."""
    found: list[tuple[Path, int]] = []
    for place in places(root):
        with contextlib.suppress(OSError):
            for folder in sorted(place.iterdir()):
                if re.fullmatch(r"[^.].*-[0-9a-f]{16}", folder.name):
                    found.append((folder, sum(file.stat().st_size for file in folder.iterdir())))
    return found


def open_(folder: Path) -> Parts | None:
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
            images.x.dtype != torch.uint8
            or tuple(images.x.shape) != contents.shape
            or images.y.dtype != torch.int64
            or images.y.shape != images.x.shape[:1]
            or not bool(((images.y >= 0) & (images.y < counts)).all())
            or tuple(torch.bincount(images.y, minlength=counts).tolist()) != contents.counts
        ):
            return None
    return train, test


def header_of(folder: Path) -> Header | None:
    """Read the header of a cache; None if it is missing or damaged."""
    try:
        return schema.load(Header, json.loads((folder / "header.json").read_text("utf-8")))
    except (OSError, ValueError, RecursionError):  # a ConfigError is a ValueError
        return None


def _write(folder: Path, key: str, mark: str, parts: Sequence[Decoded]) -> None:
    progress = _Progress(key, _total(parts))
    contents: list[Contents] = []
    for name, part in zip(("train", "test"), parts, strict=True):
        digest = hashlib.sha256()
        with _synced(folder / f"{name}-x.npy") as file:
            layout = {"descr": "|u1", "fortran_order": False, "shape": part.shape}
            np.lib.format.write_array_header_1_0(file, layout)
            for batch in progress(part.batches()):
                digest.update(batch.data)
                file.write(batch.data)
        with _synced(folder / f"{name}-y.npy") as file:
            np.save(file, part.y)
        counts = tuple(int(count) for count in np.bincount(part.y))
        contents.append(Contents(part.shape, counts, digest.hexdigest()))
    with _synced(folder / "header.json") as file:
        header = Header(FORMAT, mark, *contents)
        file.write(json.dumps(schema.dump(header), indent=2).encode())
    _sync_folder(folder)


def _publish(aside: Path, folder: Path, anew: bool) -> None:
    """Give a finished cache its name, unless another process was first."""
    try:
        aside.rename(folder)
    except OSError:
        if not anew and open_(folder):
            return
        with _aside(folder) as old:  # damaged, or not to be kept
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old / "replaced")
            aside.rename(folder)
    _sync_folder(folder.parent)


@contextlib.contextmanager
def _aside(folder: Path) -> Generator[Path]:
    """Make an empty folder beside one, and remove what is left of it in the end."""
    unique = f"{os.getpid()}-{time.monotonic_ns()}"
    aside = folder.with_name(f".{folder.name}.{unique}")
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextlib.contextmanager
def _synced(path: Path) -> Generator[Any]:
    with path.open("xb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _tidy(place: Path, key: str, keep: str) -> None:
    """Remove the data set's caches of earlier states of its source, and what crashes left."""
    cache = re.compile(rf"{re.escape(key)}-[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for folder in place.iterdir():
            aside = folder.name.startswith(".")
            name = folder.name[1:].rpartition(".")[0] if aside else folder.name
            if not cache.fullmatch(name) or folder.name == keep:
                continue
            if not aside or time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


class _Progress:
    """Says how many images are decoded: at most ten times, and not of what is quick."""

    def __init__(self, key: str, total: int) -> None:
        self.key, self.total, self.done, self.tenths = key, total, 0, 0
        self.said = time.monotonic()

    def __call__(self, batches: Iterable[Pixels]) -> Iterator[Pixels]:
        for batch in batches:
            yield batch
            self.done += len(batch)
            tenths = 10 * self.done // self.total
            if tenths > self.tenths and time.monotonic() - self.said > PATIENCE:
                self.tenths, self.said = tenths, time.monotonic()
                done, total = f"{self.done:,}", f"{self.total:,}"
                log.info("%s: %s of %s images decoded", self.key, done, total)


def _total(parts: Sequence[Decoded]) -> int:
    return sum(part.shape[0] for part in parts)
