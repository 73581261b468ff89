"""The code that `plugins` names: found, hashed and run once in a process.

An entry is a file (`my_defense.py`), a module that Python finds (`my.module`), or a package that
brings entry points (`my-package==1.2`; an experiment that uses one notes it by itself). A resolved
experiment has the SHA-256 of the code behind it, `my_defense.py#sha256=...`: code that has changed
since is refused.
"""

import hashlib
import importlib
import importlib.util
import linecache
import os
import re
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch

from entity.config.paths import user_path
from entity.config.schema import ConfigError, show
from entity.reading import read_bytes
from entity.returned import said

MARK = "#sha256="
"""Between what an entry names and the hash of the code."""

MOST_BYTES = 1 << 20
"""Size of a plugin's file."""


@dataclass(frozen=True)
class Code:
    """A plugin as it was loaded."""

    entry: str
    """What it is called in a resolved experiment, with its hash."""
    name: str
    """The same without: an absolute path, or a module."""
    sha256: str
    module: ModuleType
    content: bytes | None
    """Of a file."""


def split(entry: str) -> tuple[str, str | None]:
    """Part an entry into what it names and the hash that it must have, if it says so.

    Examples
    --------
    >>> split("/home/me/mine.py#sha256=ab12"), split("my.module")
    (('/home/me/mine.py', 'ab12'), ('my.module', None))
    """
    name, mark, digest = entry.rpartition(MARK)
    return (name, digest) if mark else (entry, None)


def short(entry: str) -> str:
    """Return an entry of a record for tables: the file's name and the first digits of its hash.

    Examples
    --------
    >>> short("/home/me/mine.py#sha256=7a443cf25c31"), short("/runs/a/model.safetensors#sha256=1f")
    ('mine.py@7a443cf2', 'a/model.safetensors@1f')
    """
    name, digest = split(entry)
    path = Path(name)
    shown = f"{path.parent.name}/{path.name}" if path.name == "model.safetensors" else path.name
    return shown if digest is None else f"{shown}@{digest[:8]}"


def is_file(name: str) -> bool:
    """Say whether an entry names a file; else it is a module or a package."""
    return name.endswith(".py") or "/" in name or os.sep in name


def absolute(entry: str, folder: Path) -> str:
    """Return an entry with the path of a file as seen from a folder; others as they are."""
    name, digest = split(entry)
    if not is_file(name):
        return entry
    path = os.path.abspath(folder / user_path(name))
    return path if digest is None else f"{path}{MARK}{digest}"


def load(entry: str, content: bytes | None = None) -> Code:
    """Load a file or a module; the same code is run once in a process.

    Parameters
    ----------
    entry
        Names it; a relative path begins at the working directory.
    content
        What the file held where this was sent from; None reads it.

    Raises
    ------
    ConfigError
        If it is missing, is not what its hash says, or fails; with the line.
    """
    name, expected = split(absolute(entry, Path()))
    return _of_file(name, content, expected) if is_file(name) else _of_module(name, expected)


def _refuse_changed(name: str, sha256: str, expected: str | None) -> None:
    """Refuse code that is not what was recorded, before any of it is run."""
    if expected not in (None, sha256):
        raise ConfigError(
            f"plugins = {show_name(name)}: has changed since it was recorded (SHA-256 "
            f"{sha256[:12]}..., not {str(expected)[:12]}...); put it back, or begin a new run."
        )


def show_name(name: str) -> str:
    """Return a path or a module for a message: whole, as `show` would cut it."""
    return name if name.isprintable() else show(name)


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a plugin's file, which is not run; None if it cannot be read."""
    try:
        return hashlib.sha256(read_bytes(path, MOST_BYTES)).hexdigest()
    except (OSError, ValueError):
        return None


def _of_file(name: str, content: bytes | None, expected: str | None) -> Code:
    path = Path(name)
    try:
        content = read_bytes(path, MOST_BYTES) if content is None else content
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"plugins = {show_name(name)}: cannot be read ({why}); {_ALLOWED[expected is None]}."
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    _refuse_changed(name, digest, expected)
    stem = re.sub(r"\W", "_", path.stem, flags=re.ASCII)
    module_name = f"drop_plugin_{stem}_{digest[:12]}"
    module = sys.modules.get(module_name)
    if module is None:
        module = _run(module_name, name, content)
    return Code(f"{name}{MARK}{digest}", name, digest, module, content)


def _run(module_name: str, name: str, content: bytes) -> ModuleType:
    """Run the content of a file as a module of its own."""
    spec = importlib.util.spec_from_loader(module_name, loader=None, origin=name)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = name
    lines = content.decode("utf-8", "replace").splitlines(keepends=True)
    # Docstrings of settings are read from the source, which another machine may not have.
    linecache.cache[name] = (len(content), None, lines, name)
    sys.modules[module_name] = module
    _ran.add(name)
    try:
        exec(compile(content, name, "exec"), vars(module))
    except BaseException as error:
        del sys.modules[module_name]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise failed(name, error) from error
    return module


def _of_module(name: str, expected: str | None) -> Code:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"plugins = {show(name)}: allowed is a Python file, such as my_defense.py, or a "
            "module that Python finds, such as my.module."
        )
    spec = _spec(name)
    if spec is None and name not in sys.modules:
        raise ConfigError(
            f"plugins = {show(name)}: there is no such module on Python's path "
            "(PYTHONPATH); name a file by its path, with .py at its end."
        )
    sha256 = _digest(spec)
    _refuse_changed(name, sha256, expected)
    if _loaded.get(name, sha256) != sha256:
        raise ConfigError(
            f"plugins = {name}: has changed since this process loaded it; start a new one, or name "
            "its file, which is loaded anew."
        )
    try:
        module = importlib.import_module(name)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise failed(name, error) from error
    _loaded[name] = sha256
    note_place(module)
    return Code(f"{name}{MARK}{sha256}", name, sha256, module, None)


_ALLOWED = {
    True: "allowed is a Python file, or a module that Python finds",
    False: "if it has moved, say where to by --plugins",
}
"""What to do where a file is not there, by whether it is named for the first time."""

_ran: set[str] = set()
"""Files, and folders of packages with a separator at their end, of all plugins of this process."""

_loaded: dict[str, str] = {}
"""SHA-256 of the modules that this process has run, as they were then."""


def _digest(spec: ModuleSpec | None) -> str:
    """Return the hash of a module's files, all below it if it is a package."""
    paths = list[Path]()
    if spec is not None and spec.submodule_search_locations:
        folders = [Path(folder) for folder in spec.submodule_search_locations]
        found = (path for folder in folders for path in folder.rglob("*.py"))
        paths = sorted(path for path in found if path.is_file())  # no link to nowhere
    elif spec is not None and spec.has_location and spec.origin:
        paths = [Path(spec.origin)]
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
        except OSError as error:
            raise ConfigError(f"plugins = {path}: cannot be read ({error.strerror}).") from error
    return digest.hexdigest()


def _spec(name: str) -> ModuleSpec | None:
    """Return where Python would find a module; `importlib.util.find_spec` runs its parents."""
    parent, _, _ = name.rpartition(".")
    within: Sequence[str] | None = None
    if parent:
        package = _spec(parent)
        within = package.submodule_search_locations if package else None
        if within is None:
            return None
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    found = (find(name, within) for find in finders if find is not None)
    return next((each for each in found if each is not None), None)


def note_place(module: ModuleType) -> None:
    """Note where the code of a module lies, for `refusal`."""
    if getattr(module, "__file__", None):
        own = Path(str(module.__file__))
        _ran.add(f"{own.parent}{os.sep}" if hasattr(module, "__path__") else str(own))


def refusal(error: BaseException) -> ConfigError | None:
    """Return the sentence for an error of a run: the error's own, or of a plugin that raised it.

    Parameters
    ----------
    error
        What was raised.

    Returns
    -------
    ConfigError
        With the last line of a plugin that ran; None for errors that no plugin had a part in, and
        where memory is short, as another try may help.
    """
    if isinstance(error, ConfigError):
        return ConfigError(str(error))  # without what a subclass holds, for another process
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return None
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if any(frame.filename.startswith(place) for place in _ran):
            name = show_name(frame.filename)
            return ConfigError(
                f"plugins = {name}, line {frame.lineno}, in {frame.name}: {said(error)}."
            )
    return None


def failed(name: str, error: BaseException) -> ConfigError:
    """Return the sentence for code that raised, with the last of its own lines that ran.

    Parameters
    ----------
    name
        The file, or the module.
    error
        What it raised.
    """
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        own = frame.filename == name or not is_file(name)
        if own and not frame.filename.startswith("<"):
            where = f"{frame.filename}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.lineno is not None:
        where = f"{error.filename or name}, line {error.lineno}"
    place = f" ({where})" if where and not where.startswith(f"{name},") else where[len(name) :]
    return ConfigError(f"plugins = {show_name(name)}{place}: {said(error)}.")
