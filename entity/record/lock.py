"""One process at a time on a run directory."""

import fcntl
import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from entity.config.schema import ConfigError
from entity.record.atomic import writing

log = logging.getLogger("entity")

FILE = ".lock"


@contextmanager
def locked(folder: Path | None) -> Generator[None]:
    """Keep other processes off a run directory, which is created if it does not exist.

    The lock ends with the process that holds it, however that ends; its file stays. Without a
    folder there is nothing to lock.

    Raises
    ------
    ConfigError
        If another process has it, or if the folder cannot be written.
    """
    if folder is None:
        yield
        return
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / FILE).open("a+")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{folder}: process {file.read() or 'unknown'} is at work on this run; wait until "
                "it is done, or stop it."
            ) from None
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): start no second process on it", folder, error)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_locked(folder: Path) -> bool | None:
    """Say whether a process is at work on a run; None where that cannot be known.

    Asking takes the lock for a moment; a run that starts in that moment is refused.
    """
    try:
        with (folder / FILE).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return False
