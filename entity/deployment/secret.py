"""What a server draws from beside the experiment's seed, which every node of a federation knows.

A node that knows the seed knows which coordinates are looked at, which noise is added and who is
asked next. In a simulation that harms nobody. A server of real nodes has a secret, too: a file
that its restarts read again, so that they draw the same.
"""

import hashlib
import os
import secrets
from pathlib import Path

from entity.config.schema import ConfigError
from entity.reading import read_bytes
from entity.record.atomic import writing

LEAST, MOST = 16, 1 << 16
"""Bytes of the file."""


def server_secret(path: Path) -> bytes:
    """Return the secret that a file holds; where there is none, make one for its owner alone.

    Parameters
    ----------
    path
        The file, of 16 bytes or more.

    Returns
    -------
    bytes
        64 of them, for `entity.seeding.Seeds`.

    Raises
    ------
    ConfigError
        If the file is too short or too long, or cannot be read or written.
    """
    with writing(path):
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_hex(32) + "\n")
    try:
        content = read_bytes(path, MOST)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
    if len(content) < LEAST:
        raise ConfigError(f"{path}: holds {len(content)} bytes; a secret has at least {LEAST}.")
    return hashlib.blake2b(content).digest()
