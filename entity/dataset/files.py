"""The files that a data set comes in: where they lie, how they are read and downloaded."""

import contextlib
import fcntl
import http.client
import logging
import socket
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from entity.config import full_disk
from entity.config.full_disk import DiskFull, is_full
from entity.config.schema import ConfigError
from entity.dataset import cache
from entity.dataset.cache import Stamp
from entity.dataset.cache_folder import Parts
from entity.dataset.decoded import Decoded
from entity.seeding import Seeds

log = logging.getLogger("entity")

DOWNLOAD_TIMEOUT = 20.0
"""Seconds without an answer after which a download is given up; torchvision sets no limit."""


def fetch_archive(url: str, md5: str, folder: Path, holds: str) -> None:
    """Download an archive and unpack it to a folder, which is whole or not there.

    Parameters
    ----------
    url, md5
        Of the archive, which goes once it is unpacked.
    folder
        Where its files go; the folder above it is made if need be.
    holds
        What lies at the top of the data, wherever that is in the archive.

    Raises
    ------
    RuntimeError
        If the archive does not hold it, or is not the one of the sum.
    """
    from torchvision.datasets.utils import download_url, extract_archive

    root = folder.parent
    root.mkdir(parents=True, exist_ok=True)
    download_url(url, str(root), md5=md5)
    archive = root / Path(url).name
    with tempfile.TemporaryDirectory(dir=root, prefix=f".{folder.name}-") as aside:
        unpacked = Path(aside) / "unpacked"
        extract_archive(str(archive), str(unpacked))
        top = next(unpacked.glob(f"**/{holds}"), None)
        if top is None:
            raise RuntimeError(f"{archive.name} holds no {holds}")
        top.parent.rename(folder)
    archive.unlink()


@dataclass(frozen=True)
class Files:
    """The files of one data set, and what they decode to."""

    key: str
    """Its name among the caches."""
    title: str
    """Its name in messages."""
    folders: tuple[str, ...]
    """Where it may lie below the data folder; the first is where it is downloaded to."""
    scan: Callable[[Path], list[Stamp] | None]
    """List the files below such a folder; None where it is not complete."""
    decode: Callable[[Path, Sequence[str]], tuple[Decoded, Decoded]]
    """Open them, given the folder and their paths below it: training and test images."""
    remedy: str
    """How to get them by hand, the end of a sentence that begins with their being missing."""
    download: Callable[[Path], object] | None = None
    """Download them to a data folder; None if only `drop data fetch` or the user can."""
    fetch: Callable[[Path], object] | None = None
    """What `drop data fetch` does where a run must not, for its size; None does `download`."""
    recipe: str = "1"
    """Changes with the way of decoding, and makes caches anew."""
    beside: Path | None = None
    """The folder whose `.drop-cache` has the caches; None is the data folder."""

    def locate(self, root: Path) -> tuple[Path, list[Stamp]] | None:
        """Return the folder that the files are in and the list of them, or None."""
        for name in self.folders:
            folder = root / name
            with contextlib.suppress(OSError):
                if (stamps := self.scan(folder)) is not None:
                    return folder, stamps
        return None

    def read(self, root: Path, seeds: Seeds | None = None) -> Parts:
        """Map the training and the test images, decoded now if they have not been before.

        Raises
        ------
        ConfigError
            If the files are missing and cannot be downloaded, or are damaged.
        """
        found = self.locate(root)
        if found is None and self.download is not None:
            found = self.obtain(root, self.download)
        if found is None:
            raise self.missing(root)
        folder, stamps = found
        paths = [path for path, _, _ in stamps]
        decode = partial(self.decode, folder, paths)
        return cache.read(self.beside or root, self.key, self.fingerprint(stamps), decode)

    def verify(self, root: Path) -> tuple[Parts, bool]:
        """Decode all files anew; return the images, and whether a cache of them was damaged.

        Raises
        ------
        ConfigError
            If files are missing or damaged.
        """
        found = self.locate(root)
        if found is None:
            raise self.missing(root)
        folder, stamps = found
        mark = self.fingerprint(stamps)
        before = cache.lookup(self.beside or root, self.key, mark)
        decoded = self.decode(folder, [path for path, _, _ in stamps])
        after = cache.make(self.beside or root, self.key, mark, decoded, anew=True)
        if after is None:
            train, test = (part.in_memory() for part in decoded)
            after = train, test
        was_damaged = before is not None and any(
            old.sha256() != new.sha256() or not torch.equal(old.y, new.y)
            for old, new in zip(before, after, strict=True)
        )
        return after, was_damaged

    def cached(self, root: Path, stamps: Sequence[Stamp]) -> Parts | None:
        """Return the images of a cache of this state of the files, if there is one."""
        return cache.lookup(self.beside or root, self.key, self.fingerprint(stamps))

    def fingerprint(self, stamps: Sequence[Stamp]) -> str:
        """Return the name of this state of the files."""
        return cache.fingerprint(self.recipe, stamps)

    def obtain(
        self, root: Path, download: Callable[[Path], object]
    ) -> tuple[Path, list[Stamp]] | None:
        """Download the files, unless another process has done so meanwhile, and locate them.

        They are there whole or not at all: they are downloaded to a folder aside.

        Raises
        ------
        DiskFull
            If the disk is full.
        ConfigError
            If the download fails, for whatever other reason.
        """
        before = socket.getdefaulttimeout()
        target = root / self.folders[0]
        new = [folder for folder in (target, *target.parents) if not folder.exists()]
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
        log.info("downloading %s to %s", self.title, target)
        try:
            root.mkdir(parents=True, exist_ok=True)
            with _alone(root), tempfile.TemporaryDirectory(dir=root, prefix=_ASIDE) as aside:
                if self.locate(root) is None:
                    with _kept_inside():
                        download(Path(aside))
                    _merge(Path(aside), root)
        except (
            OSError,
            RuntimeError,
            EOFError,
            http.client.HTTPException,
            tarfile.TarError,
            zipfile.BadZipFile,
        ) as error:
            for folder in new:  # an empty one says nothing true
                with contextlib.suppress(OSError):
                    folder.rmdir()
            if is_full(error):
                raise DiskFull(target, full_disk.reason(error)) from None
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise self.missing(root, f" and could not be downloaded ({reason[0]})") from None
        finally:
            socket.setdefaulttimeout(before)
        return self.locate(root)

    def missing(self, root: Path, also: str = "") -> ConfigError:
        """Return the error that says where the files were looked for and how to get them there."""
        first, *others = (str(root / name) for name in self.folders)
        looked = first + (f" (nor in {', '.join(others)})" if others else "")
        return ConfigError(
            f"settings.datasets_path = {root}: {self.title} is not in {looked}{also}: "
            f"{self.remedy}."
        )


_ASIDE = ".drop-download"
"""How the names of a folder that is downloaded to begin, and that of the lock."""


@contextlib.contextmanager
def _alone(root: Path) -> Generator[None]:
    """Let one process after another download to a data folder; the lock ends with its process."""
    lock = root / f"{_ASIDE}.lock"
    with lock.open("a") as file:
        with contextlib.suppress(OSError):  # some network file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _merge(source: Path, target: Path) -> None:
    """Move what lies in one folder into another, over files of the same names."""
    for each in sorted(source.iterdir()):
        place = target / each.name
        if each.is_dir() and place.is_dir():
            _merge(each, place)
        else:
            each.replace(place)


@contextlib.contextmanager
def _kept_inside() -> Generator[None]:
    """Unpack archives with Python's filter for data: nothing beside the folder, no devices.

    torchvision's `extract_archive` names no filter, and Python has one by default from 3.14 on.
    """
    strict, kind = getattr(tarfile, "data_filter", None), tarfile.TarFile
    before = vars(kind).get("extraction_filter")
    if strict is None:  # Python 3.11.0 to 3.11.3
        yield
        return
    kind.extraction_filter = staticmethod(strict)
    try:
        yield
    finally:
        kind.extraction_filter = before


def scan_files(*names: str, gzipped: bool = False) -> Callable[[Path], list[Stamp] | None]:
    """Return a `Files.scan` that wants every one of some files, `gzipped` or as they are."""

    def scan(folder: Path) -> list[Stamp] | None:
        stamps: list[Stamp] = []
        for name in names:
            for file in [folder / f"{name}.gz"] * gzipped + [folder / name]:
                if file.is_file():
                    status = file.stat()
                    stamps.append((file.name, status.st_size, status.st_mtime_ns))
                    break
            else:
                return None
        return stamps

    return scan


def damaged(path: Path, reason: str, remedy: str) -> ConfigError:
    """Return the error that names a file of a data set that cannot be used.

    Parameters
    ----------
    path
        The file.
    reason
        What is wrong with it, continuing "is damaged, ".
    remedy
        What the user can do.
    """
    return ConfigError(f"settings.datasets_path: {path} is damaged, {reason}: {remedy}.")


AGAIN = "remove it, to have it downloaded again"
"""The remedy for a damaged file that comes from a download."""
