"""What the files hold that an attack reads: a part of what a run is, wherever they lie.

A trigger's picture or a folder of edge cases may change under its name. Two runs with the same
configuration are the same experiment only if these files are the same.
"""

import hashlib
import stat
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from entity.client.triggers import PATTERNS
from entity.config.paths import user_path
from entity.config.schema import flatten

READ = ("client.attack.trigger_pattern", "client.attack.edge_case_path")
"""Fields that may name a file or a folder of files."""


def contents(tables: Mapping[str, Any]) -> dict[str, str]:
    """Return the SHA-256 of what lies under the fields of `to_json` that name files, by field.

    A folder's is that of the names and contents of the files in it. What is not there has none;
    whoever reads it says so.
    """
    named = {path: value for path, value in flatten(tables) if path in READ}
    found = {path: _digest(value) for path, value in named.items()}
    return {path: digest for path, digest in found.items() if digest}


def gone(tables: Mapping[str, Any]) -> list[str]:
    """Return the fields that name a file which cannot be read."""
    read = contents(tables)
    return [
        path
        for path, value in flatten(tables)
        if path in READ and _names(value) and path not in read
    ]


def _names(value: object) -> bool:
    """Whether it names a file or a folder, there or not."""
    return isinstance(value, str) and value != "" and value not in PATTERNS


def _digest(value: object) -> str:
    if not _names(value):
        return ""
    path = user_path(str(value))
    try:
        if not path.is_dir():
            return _of_file(path)
        files = sorted(each for each in path.iterdir() if each.name[0] != ".")
        lines = [f"{file.name} {digest}" for file in files if (digest := _of_file(file))]
        # A name need not be UTF-8.
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
    except OSError:
        return ""


def _of_file(path: Path) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # a folder in a folder is not read; a device has no end
        return ""
    return _sha256(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=65536)
def _sha256(path: str, size: int, changed: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
