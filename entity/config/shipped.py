"""Configurations that come with the package, by name: `mnist5k/drop`."""

import os
from functools import cache
from importlib.resources import files
from pathlib import Path

from entity.config.paths import user_path
from entity.config.schema import ConfigError, suggest


def shipped(name: str) -> Path:
    """Return a configuration of the package, such as `mnist5k/drop`."""
    return Path(str(files("entity") / "configs" / f"{name}.json"))


def file_or_shipped(name: str | Path, folder: Path) -> Path:
    """Return the file of that name in a folder, or else the shipped configuration of that name.

    Where there is neither, it is the file, which its reader will miss.
    """
    path = folder / user_path(name)
    known = Path(name).as_posix()
    return shipped(known) if not os.path.exists(path) and known in names() else path


def find_config(name: str, beside: Path) -> Path:
    """Find a configuration: a file beside the grid, one from here, or a shipped one.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    for path in (beside / user_path(name), user_path(name)):
        if os.path.isfile(path):  # unlike Path.is_file, false for a name too long
            return path
    if name in names():
        return shipped(name)
    raise ConfigError(
        f"config {name}: is neither a file nor a shipped configuration.{suggest(name, names())}"
    )


@cache
def names() -> list[str]:
    """Return the names of all shipped configurations."""
    root = shipped("any").parent
    return sorted(
        path.relative_to(root).with_suffix("").as_posix() for path in root.rglob("*.json")
    )
