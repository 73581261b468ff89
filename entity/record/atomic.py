"""Files that are on disk whole or not at all, whenever the process dies."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from entity.config.full_disk import DiskFull, is_full, reason
from entity.config.schema import ConfigError
from entity.record.links import open_own


class CannotWrite(ConfigError):
    """A file or folder cannot be written; the sentence begins with its path."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: cannot be written ({reason}).")


@contextmanager
def writing(path: Path, *, begun: bool = False) -> Generator[None]:
    """Turn an OSError of the block into one sentence about the path.

    Parameters
    ----------
    path
        What is written, as the user named it.
    begun
        Whether it could be written before, so that the user's naming it is not at fault.

    Raises
    ------
    DiskFull
        For a full disk, and for any OSError of what has been begun.
    CannotWrite
        For any other OSError.
    """
    try:
        yield
    except OSError as error:
        if begun or is_full(error):
            raise DiskFull(path, reason(error)) from error
        raise CannotWrite(path, reason(error)) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to disk and rename it into place."""
    part = path.with_name(path.name + ".part")
    try:
        part.unlink(missing_ok=True)  # what a killed process left, or a link to elsewhere
        with open_own(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        with suppress(OSError):  # leave no half of a file on a disk that may be full
            part.unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Flush to disk which files a folder holds under which names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
