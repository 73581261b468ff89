"""Files that are on disk whole or not at all, whenever the process dies."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from entity.config.schema import ConfigError


class CannotWrite(ConfigError):
    """A file or folder cannot be written; the sentence begins with its path."""

    def __init__(self, path: Path, reason: object) -> None:
        super().__init__(f"{path}: cannot be written ({reason}).")


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn an OSError of the block into one sentence about the path.

    Raises
    ------
    CannotWrite
        For any OSError.
    """
    try:
        yield
    except OSError as error:
        raise CannotWrite(path, error.strerror) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under another name, flush it to disk and rename it into place."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def sync_folder(folder: Path) -> None:
    """Flush to disk which files a folder holds under which names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
