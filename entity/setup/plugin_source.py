"""The source of a plugin, a file or a folder of them: read whole, hashed, and run from memory.

What runs is what was read and hashed: another machine may not have the files, and an edit in the
meantime changes nothing. A folder is a package, whose modules import one another by
`from . import other`; files in it that are no Python are not carried.
"""

import hashlib
import importlib
import linecache
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from entity.reading import TooLarge, read_bytes

INIT = "__init__.py"
"""What a folder must have to be a plugin."""

MOST_BYTES = 1 << 20
"""Size of a plugin, of all its files together."""

Source = bytes | Mapping[str, bytes]
"""What a file holds, or what each file of a folder holds, by its path below the folder."""


def read(path: Path) -> Source:
    """Return the source of a plugin; of a folder, what can be imported by name.

    Raises
    ------
    OSError
        If a file cannot be read, or there is too much.
    ValueError
        If a folder has no `__init__.py`.
    """
    if not path.is_dir():
        return read_bytes(path, MOST_BYTES)
    if not (path / INIT).is_file():
        raise ValueError(f"a folder without {INIT}")
    found, left = dict[str, bytes](), MOST_BYTES
    for place, folders, names in os.walk(path):
        folders[:] = sorted(each for each in folders if each.isidentifier() and each != _CACHE)
        for name in sorted(names):
            file = Path(place, name)
            if file.suffix == ".py" and file.stem.isidentifier() and file.is_file():
                content = read_bytes(file, MOST_BYTES)
                found[file.relative_to(path).as_posix()] = content
                left -= len(content)
                if left < 0:
                    raise TooLarge(path, MOST_BYTES)
    return found


_CACHE = "__pycache__"


def digest(source: Source) -> str:
    """Return the SHA-256 of a source: of a file's content, or of the names and contents of files.

    Examples
    --------
    >>> digest(b"")[:8], digest({"__init__.py": b""})[:8]
    ('e3b0c442', '425924cc')
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    whole = hashlib.sha256()
    for name, content in sorted(source.items()):
        whole.update(f"{name}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


def run(name: str, place: str, source: Source) -> ModuleType:
    """Import a source as a module or a package; where that fails, nothing of it stays.

    Parameters
    ----------
    name
        What it is called in this process.
    place
        Path of the file or the folder, which tracebacks show.
    source
        As `read` returned it.
    """
    finder = _Finder(_modules(name, place, source))
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    except BaseException:
        sys.meta_path.remove(finder)
        for each in finder.modules:
            sys.modules.pop(each, None)
        raise


class _Module(NamedTuple):
    """A module that can be imported."""

    place: str
    content: bytes
    is_package: bool


def _modules(name: str, place: str, source: Source) -> dict[str, _Module]:
    """Return all modules of a source; a folder in it that lacks `__init__.py` is an empty one."""
    if isinstance(source, bytes):
        return {name: _Module(place, source, is_package=False)}
    found: dict[str, _Module] = {}
    for path, content in source.items():
        *folders, stem = path.removesuffix(".py").split("/")
        for depth in range(len(folders) + 1):
            folder = os.path.join(place, *folders[:depth])
            package = ".".join([name, *folders[:depth]])
            found.setdefault(package, _Module(os.path.join(folder, INIT), b"", is_package=True))
        folder = os.path.join(place, *folders)
        is_package = f"{stem}.py" == INIT
        module = ".".join([name, *folders, *([] if is_package else [stem])])
        found[module] = _Module(os.path.join(folder, f"{stem}.py"), content, is_package)
    return found


class _Finder(MetaPathFinder, Loader):
    """Finds and runs the modules of one source."""

    def __init__(self, modules: Mapping[str, _Module]) -> None:
        self.modules = modules

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return how a module of the source is imported; None for all others."""
        if (module := self.modules.get(fullname)) is None:
            return None
        # A package looks for its modules nowhere else: what lies beside them was not hashed.
        spec = ModuleSpec(fullname, self, origin=module.place, is_package=module.is_package)
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        """Run a module."""
        place, content, _ = self.modules[module.__name__]
        code = compile(content, place, "exec")
        # Docstrings of settings are read from the source, which another machine may not have.
        lines = StringIO(decode_source(content)).readlines()
        linecache.cache[place] = (len(content), None, lines, place)
        exec(code, vars(module))
