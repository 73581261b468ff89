"""One process at a time on a run directory."""

import fcntl
import logging
import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from entity.config.schema import ConfigError
from entity.reading import open_regular
from entity.record.atomic import writing
from entity.record.follow import ending
from entity.record.links import open_own, refuse_links

log = logging.getLogger("entity")

FILE = ".lock"


class InUse(ConfigError):
    """Another process is at work on a run; the sentence begins with its folder."""

    def __init__(self, folder: Path, owner: str) -> None:
        super().__init__(
            f"{folder}: {owner} is at work on this run; wait until it is done, or stop it."
        )
        self.owner = owner
        """Process and machine, as in `process 4711 on node3`."""


@contextmanager
def locked(folder: Path | None) -> Generator[None]:
    """Keep other processes off a run directory, which is created if it does not exist.

    The lock ends with the process that holds it, however that ends; its file stays. Without a
    folder there is nothing to lock.

    Raises
    ------
    InUse
        If another process has it.
    CannotWrite
        If the folder cannot be written.
    ConfigError
        If it holds a symbolic link.
    """
    if folder is None:
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        refuse_links(folder)
        file = open_own(folder / FILE, "a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUse(folder, owner_of(folder)) from None
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): start no second process on it", folder, error)
        with writing(folder):
            file.truncate(0)
            owner = f"{os.getpid()} on {platform.node()}"
            os.write(file.fileno(), owner.encode())  # no buffer that closing would flush
        yield


def owner_of(folder: Path) -> str:
    """Return who has locked a folder, or had."""
    text = ending(folder / FILE, 200).strip()
    return f"process {text or 'unknown'}"


def is_locked(folder: Path) -> bool | None:
    """Say whether a process is at work on a run; None where that cannot be known.

    Asking takes the lock for a moment; a run that starts in that moment is refused.
    """
    try:
        with open_regular(folder / FILE) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False
