"""The code that `plugins` names: found, hashed and run once in a process.

An entry is a file (`my_defense.py`), a folder of files that import one another (`my_methods/`), a
module that Python finds (`my.module`), or a package that brings entry points (`my-package==1.2`; an
experiment that uses one notes it by itself). A resolved experiment has the SHA-256 of the code
behind it, `my_defense.py#sha256=...`: code that has changed since is refused.
"""

import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import torch

from entity.config.paths import user_path
from entity.config.schema import ConfigError, show
from entity.returned import said
from entity.setup import plugin_source
from entity.setup.plugin_source import INIT, Source

MARK = "#sha256="
"""Between what an entry names and the hash of the code."""


@dataclass(frozen=True)
class Code:
    """A plugin as it was loaded."""

    entry: str
    """What it is called in a resolved experiment, with its hash."""
    name: str
    """The same without: an absolute path, or a module."""
    sha256: str
    module: ModuleType
    source: Source | None
    """Of a file or a folder."""


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


def is_path(name: str) -> bool:
    """Say whether an entry names a file or a folder; else it is a module or a package."""
    return name.endswith(".py") or "/" in name or os.sep in name


def absolute(entry: str, folder: Path) -> str:
    """Return an entry with its path as seen from a folder; one that is none as it is."""
    name, digest = split(entry)
    if not is_path(name):
        return entry
    path = os.path.abspath(folder / user_path(name))
    return path if digest is None else f"{path}{MARK}{digest}"


def load(entry: str, source: Source | None = None) -> Code:
    """Load a file, a folder or a module; the same code is run once in a process.

    Parameters
    ----------
    entry
        Names it; a relative path begins at the working directory.
    source
        What the file or folder held where this was sent from; None reads it.

    Raises
    ------
    ConfigError
        If it is missing, is not what its hash says, or fails; with the line.
    """
    name, expected = split(absolute(entry, Path()))
    return _at_path(name, source, expected) if is_path(name) else _of_module(name, expected)


def refuse_changed(name: str, sha256: str, expected: str | None) -> None:
    """Refuse code that is not what was recorded."""
    if expected not in (None, sha256):
        raise ConfigError(
            f"plugins = {show_name(name)}: has changed since it was recorded (SHA-256 "
            f"{sha256[:12]}..., not {str(expected)[:12]}...); put it back, or begin a new run."
        )


def show_name(name: str) -> str:
    """Return a path or a module for a message: whole, as `show` would cut it."""
    return name if name.isprintable() else show(name)


def digest_of(path: Path) -> str | None:
    """Return the SHA-256 of a plugin's file or folder, which is not run; None if unreadable."""
    try:
        return plugin_source.digest(plugin_source.read(path))
    except (OSError, ValueError):
        return None


def _at_path(name: str, source: Source | None, expected: str | None) -> Code:
    path = Path(name)
    try:
        source = plugin_source.read(path) if source is None else source
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(
            f"plugins = {show_name(name)}: cannot be read ({why}); {_ALLOWED[expected is None]}."
        ) from error
    digest = plugin_source.digest(source)
    refuse_changed(name, digest, expected)
    module_name = f"{_PREFIX}{digest[:12]}"  # the same wherever it lies
    module = sys.modules.get(module_name)
    if module is None:
        _ran.add(name if isinstance(source, bytes) else f"{name}{os.sep}")
        try:
            module = plugin_source.run(module_name, name, source)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise failed(name, error) from error
    return Code(f"{name}{MARK}{digest}", name, digest, module, source)


def _of_module(name: str, expected: str | None) -> Code:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(
            f"plugins = {show(name)}: allowed is a Python file, such as my_defense.py, a folder of "
            "them, such as my_methods/, or a module that Python finds, such as my.module."
        )
    spec = _spec(name)
    if spec is None and name not in sys.modules:
        raise ConfigError(
            f"plugins = {show(name)}: there is no such module on Python's path "
            "(PYTHONPATH); a file has .py at its end, and a folder a /."
        )
    sha256 = _digest(spec)
    refuse_changed(name, sha256, expected)
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


_PREFIX = "drop_plugin_"
"""Of what plugins are called in a process."""

_ALLOWED = {
    True: f"allowed is a Python file, a folder of them with {INIT}, or a module that Python finds",
    False: "if it has moved, say where to by --plugins",
}
"""What to do where a file is not there, by whether it is named for the first time."""

_ran: set[str] = set()
"""Files, and folders with a separator at their end, of all plugins of this process."""

_loaded: dict[str, str] = {}
"""SHA-256 of the modules that this process has run, as they were then."""


def _digest(spec: ModuleSpec | None) -> str:
    """Return the hash of a module's file, or of the paths and contents of a package's files."""
    if spec is None:
        return hashlib.sha256().hexdigest()
    if spec.submodule_search_locations:
        found = dict[str, bytes]()
        for folder in map(Path, spec.submodule_search_locations):
            for path in folder.rglob("*.py"):
                if path.is_file():  # no link to nowhere
                    found.setdefault(path.relative_to(folder).as_posix(), _content(path))
        return plugin_source.digest(found)
    digest = hashlib.sha256()
    if spec.has_location and spec.origin:
        path = Path(spec.origin)
        digest.update(path.name.encode() + b"\0" + _content(path))
    return digest.hexdigest()


def digest_of_package(package: str, modules: Iterable[str]) -> str:
    """Return the SHA-256 of an installed package: its version and its Python files.

    One that is installed to be edited (`pip install -e`) changes without its version.

    Parameters
    ----------
    package
        Its name and version, such as my-package==1.2.
    modules
        Those that its entry points name; all that lies in their outermost package counts.

    Raises
    ------
    ConfigError
        If a file cannot be read.
    """
    whole = hashlib.sha256(package.encode())
    for root in sorted({_outermost(module) for module in modules}):
        whole.update(f"\0{root}\0{_digest(_spec(root))}".encode())
    return whole.hexdigest()


def _outermost(module: str) -> str:
    """Return the outermost package of a module that is no mere namespace, which others share."""
    parts = module.split(".")
    names = (".".join(parts[:length]) for length in range(1, len(parts)))
    return next((name for name in names if (spec := _spec(name)) and spec.has_location), module)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plugins = {path}: cannot be read ({error.strerror}).") from error


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
        The file, the folder, or the module.
    error
        What it raised.
    """
    where = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if _is_of(frame.filename, name):
            where = f"{frame.filename}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.lineno is not None:
        where = f"{error.filename or name}, line {error.lineno}"
    place = f" ({where})" if where and not where.startswith(f"{name},") else where[len(name) :]
    what = re.sub(rf"{_PREFIX}[0-9a-f]{{12}}\b", Path(name).name, said(error))
    return ConfigError(f"plugins = {show_name(name)}{place}: {what}{_hint(name, error)}.")


def _is_of(file: str, name: str) -> bool:
    """Whether a file of a traceback is the plugin's own; of a module any one may be."""
    if is_path(name):
        return file == name or file.startswith(f"{name}{os.sep}")
    return not file.startswith("<")


def _hint(name: str, error: BaseException) -> str:
    """Say how a plugin's files import one another, where one of them was not found."""
    if not isinstance(error, ImportError) or not is_path(name):
        return ""
    path = Path(name)
    if not path.is_dir() and "relative import" in str(error):
        return f"; a file stands alone: name its folder, with {INIT} in it"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    missing = error.name.partition(".")[0]
    folder = path if path.is_dir() else path.parent
    own = missing == folder.name and path.is_dir()
    if not own and not (folder / f"{missing}.py").exists() and not (folder / missing).is_dir():
        return ""
    if path.is_dir():
        return f"; within a folder write `from . import {'...' if own else missing}`"
    return (
        f"; a file stands alone, and what lies beside it is not found: name the folder, with {INIT}"
        f" in it, and write `from . import {missing}`"
    )
