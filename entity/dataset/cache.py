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
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path

from entity.config.paths import user_path
from entity.dataset.cache_folder import FORMAT, Parts, open_cache, sync_folder, write
from entity.dataset.decoded import Decoded

log = logging.getLogger("entity")

FOLDER = ".drop-cache"
"""Name of the folder of caches inside a data folder."""
ABANDONED = 86_400.0
"""Seconds after which nobody is held to use a cache that nobody has opened since, or to write on
one that has no name yet. Worker processes of a run map it by its name, later than the run."""

Stamp = tuple[str, int, int]
"""Path below the source's folder, size in bytes, time of the last change in ns."""


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
    images = lookup(root, key, mark)
    if images is not None:
        return images
    parts = decode()
    if made := make(root, key, mark, parts):
        return made
    log.warning("%s: no place for a cache, neither in %s nor at home", key, root)
    train, test = (part.in_memory() for part in parts)
    return train, test


def lookup(root: Path, key: str, mark: str) -> Parts | None:
    """Map a cache that is there and undamaged; None if there is none.

    Parameters
    ----------
    root, key, mark
        As `read` takes them.
    """
    for parent in cache_folders(root):
        folder = parent / f"{key}-{mark}"
        if images := open_cache(folder):
            with contextlib.suppress(OSError):  # which may be another user's
                os.utime(folder)
            return images
    return None


def make(
    root: Path, key: str, mark: str, parts: Sequence[Decoded], *, anew: bool = False
) -> Parts | None:
    """Write a cache in the first folder that takes it, and map it; None where none does.

    Parameters
    ----------
    root, key, mark
        As `read` takes them.
    parts
        The training and the test images.
    anew
        Replace a cache that another process has put there meanwhile, instead of taking it.
    """
    for parent in cache_folders(root):
        folder = parent / f"{key}-{mark}"
        try:
            parent.mkdir(parents=True, exist_ok=True)
            with _aside(folder) as aside:
                write(aside, key, mark, parts)
                _publish(aside, folder, anew)
            if images := open_cache(folder):
                total = sum(part.shape[0] for part in parts)
                what = f"{total:,} {parts[0].kind}"
                log.info("%s: %s decoded into %s", key, what, folder)
                _tidy(parent, key, keep=folder.name)
                return images
        except OSError:  # read-only or full
            continue
    return None


def cache_folders(root: Path) -> list[Path]:
    """Return the folders that caches of a data folder may lie in, the first choice first."""
    folders = [root / FOLDER] if root.is_dir() else []
    with contextlib.suppress(RuntimeError, OSError, ValueError):  # no home, or no path at all
        home = user_path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        # Two data folders may hold different files under the same names.
        own = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:12]
        folders.append(home / "drop" / own)
    return folders


def caches(root: Path) -> list[tuple[Path, int]]:
    """Return the caches of a data folder and the size of each in bytes."""
    sizes: list[tuple[Path, int]] = []
    for parent in cache_folders(root):
        with contextlib.suppress(OSError):
            for folder in sorted(parent.iterdir()):
                if re.fullmatch(r"[^.].*-[0-9a-f]{16}", folder.name):
                    sizes.append((folder, sum(file.stat().st_size for file in folder.iterdir())))
    return sizes


def _publish(aside: Path, folder: Path, anew: bool) -> None:
    """Give a finished cache its name, unless another process was first."""
    try:
        aside.rename(folder)
    except OSError:
        if not anew and open_cache(folder):
            return
        with _aside(folder) as old:  # damaged, or not to be kept
            with contextlib.suppress(FileNotFoundError):
                folder.rename(old / "replaced")
            aside.rename(folder)
    sync_folder(folder.parent)


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


def _tidy(parent: Path, key: str, keep: str) -> None:
    """Remove the data set's caches of other states of its source, and what crashes left.

    Another run may still use one, of the same files in another size.
    """
    cache = re.compile(rf"{re.escape(key)}-[0-9a-f]{{16}}")
    with contextlib.suppress(OSError):
        for folder in parent.iterdir():
            aside = folder.name.startswith(".")
            name = folder.name[1:].rpartition(".")[0] if aside else folder.name
            if not cache.fullmatch(name) or folder.name == keep:
                continue
            if time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)
