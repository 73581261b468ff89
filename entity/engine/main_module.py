"""Whether worker processes can be started from here.

A process of Python's `spawn` begins by importing the main module of the one that starts it. Where
that is no file, it cannot; where the call that starts workers stands at the top level of a script,
it would come to that call again.
"""

import ast
import multiprocessing
import sys
from collections.abc import Iterator
from multiprocessing import process
from pathlib import Path
from types import FrameType, ModuleType

GUARD = 'if __name__ == "__main__":'


def obstacle() -> str:
    """Say why no worker process can be started here; an empty text if nothing is known."""
    if multiprocessing.current_process().daemon:
        return "a daemonic process, such as a worker of multiprocessing.Pool, may have no children"
    main = sys.modules["__main__"]
    path = _file(main)
    if path is None or _is_not_imported(main):
        return ""
    if not path.is_file():
        return f"they would have to import the main module, and {path.name} is no file"
    if (line := _unguarded_line(main, path)) is not None:
        return f"they would run {path.name} again, whose line {line} is not under `{GUARD}`"
    return ""


def unknown_names() -> str:
    """Say why workers would not know what the main module defines; an empty text if they would."""
    if _file(sys.modules["__main__"]) is None:
        return "workers would not know what is defined here, in no file that they could import"
    return ""


def refuse_second_start() -> None:
    """End a worker process that is just importing a main module without a guard.

    Raises
    ------
    SystemExit
        With a line for standard error.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(f"a worker process is running the script again: it lacks `{GUARD}`.")


def _file(main: ModuleType) -> Path | None:
    name = getattr(main, "__file__", None)
    return Path(process.ORIGINAL_DIR or ".", name) if name else None  # pyright: ignore


def _is_not_imported(main: ModuleType) -> bool:
    """Whether `spawn` leaves it out, as the `__main__` of a package."""
    name = getattr(getattr(main, "__spec__", None), "name", "")
    return name.rpartition(".")[2] == "__main__"


def _unguarded_line(main: ModuleType, path: Path) -> int | None:
    """Return the line of the main module that is running now, if an import would run it, too."""
    lines = [frame.f_lineno for frame in _stack() if _is_top_level(frame, main)]
    if not lines:
        return None
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None
    line = lines[-1]
    around = [
        condition
        for node in ast.walk(tree)
        if (condition := _condition(node)) is not None
        and node.lineno <= line <= (node.end_lineno or 0)  # type: ignore[attr-defined]
    ]
    return None if any(_asks_for_name(condition) for condition in around) else line


def _condition(node: ast.AST) -> ast.expr | None:
    """Return on what it depends whether a part of a program runs; None if on nothing."""
    match node:
        case ast.If() | ast.IfExp() | ast.While():
            return node.test
        case ast.BoolOp():  # __name__ == "__main__" and main()
            return node.values[0]
        case ast.Match():
            return node.subject
        case _:
            return None


def _asks_for_name(condition: ast.expr) -> bool:
    return any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(condition))


def _stack() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_top_level(frame: FrameType, main: ModuleType) -> bool:
    return frame.f_globals is vars(main) and frame.f_code.co_name == "<module>"
