"""The files that the function of a data set says it reads, so that a change of them is seen.

    @reads("samples.npy", "texts/")
    def mine():
        return Arrays(...)

A cache of what the function returned is of this state of the files: their names, sizes and times of
the last change, as with the files of any data set. Nothing of them is read here.
"""

import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from entity.config.paths import user_path
from entity.config.schema import ConfigError, show
from entity.dataset.cache import Stamp

Function = TypeVar("Function", bound=Callable[..., Any])

_ATTRIBUTE = "reads"


def reads(*paths: str | Path) -> Callable[[Function], Function]:
    """Declare the files that a function reads.

    Parameters
    ----------
    paths
        Files, and folders of which all files count but hidden ones. Relative ones begin at the
        folder of the file that the function is in.

    Raises
    ------
    TypeError
        If what is given is no path.
    """
    known = all(isinstance(path, str | Path) for path in paths)  # pyright: ignore[reportUnnecessaryIsInstance]
    if not paths or not known:
        raise TypeError('reads takes the paths of files: write @reads("samples.npy")')

    def declared(function: Function) -> Function:
        setattr(function, _ATTRIBUTE, paths)
        return function

    return declared


def stamps_of(function: Callable[..., Any]) -> list[Stamp]:
    """Return the files that a function says it reads, as they are now; none where it says nothing.

    Raises
    ------
    ConfigError
        If one is missing, or a folder cannot be listed.
    """
    home = _folder_of(function)
    stamps: list[Stamp] = []
    for declared in getattr(function, _ATTRIBUTE, ()):
        path = home / user_path(declared)
        try:
            files = sorted(_files_below(path)) if path.is_dir() else [path]
            found = [(file, file.stat()) for file in files]
        except OSError as error:
            raise ConfigError(
                f"its function reads {show(str(declared))}, and {error.filename or path} cannot be "
                f"found ({error.strerror}); put it there, or correct its @reads."
            ) from error
        stamps += [(_name(declared, file, path), s.st_size, s.st_mtime_ns) for file, s in found]
    return stamps


def _folder_of(function: Callable[..., Any]) -> Path:
    """Return the folder of a function's file; the working directory where it is of none."""
    names: dict[str, Any] = getattr(inspect.unwrap(function), "__globals__", {})
    file = names.get("__file__")
    return Path(file).absolute().parent if file else Path.cwd()


def _name(declared: str | Path, file: Path, path: Path) -> str:
    """Name a file by what was declared, so that a plugin that moves with its files is the same."""
    return f"{declared}\0{file.relative_to(path)}"


def _files_below(folder: Path) -> Iterator[Path]:
    """List the files in a folder and in those below it, through links, no folder twice."""

    def raised(error: OSError) -> None:
        raise error

    seen = {os.path.realpath(folder)}
    for where, folders, files in os.walk(folder, onerror=raised, followlinks=True):
        below = {os.path.realpath(os.path.join(where, name)): name for name in sorted(folders)}
        kept = {at: n for at, n in below.items() if at not in seen and not n.startswith(".")}
        folders[:] = kept.values()
        seen |= kept.keys()
        yield from (Path(where, name) for name in files if not name.startswith("."))


__all__ = ["reads", "stamps_of"]
