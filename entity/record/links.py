"""No writing through symbolic links: a run writes into its own folder, and nowhere else.

Run folders are shared and copied. A link in one may lead anywhere: a lock would empty the file
there, and clearing `artifacts` would delete another folder's. The folder itself may be a link.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from entity.config.schema import ConfigError

FOLDERS = ("artifacts", "checkpoint", "trackers")
"""Folders of a run directory."""


def refuse_links(folder: Path) -> None:
    """Refuse a run directory that holds a symbolic link.

    Raises
    ------
    ConfigError
        Naming the link.
    """
    for entry in _entries(folder):
        if entry.is_symlink():
            raise ConfigError(
                f"{entry.path}: is a symbolic link, and a run writes to nothing outside its "
                "folder; put the file or folder itself there, or remove the link."
            )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    for place in (folder, *(folder / name for name in FOLDERS)):
        if place.is_dir():
            with os.scandir(place) as entries:
                yield from entries


def open_own(path: Path, mode: str, **how: Any) -> IO[Any]:
    """Open a file to write, unless a symbolic link is in its place.

    Parameters
    ----------
    path, mode, how
        As `open` takes them.

    Raises
    ------
    OSError
        If it is a link, or cannot be opened.
    """
    return open(path, mode, opener=_opened, **how)


def _opened(path: str, flags: int) -> int:
    # A pipe in the place of a lock would keep whoever opens it waiting.
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    return os.open(path, flags, 0o666)
