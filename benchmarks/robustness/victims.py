"""Processes that die before their work is done: at an operation on files, or after a time.

They are forked from a server that has imported everything (`warm.py`), so that a death costs
little; they are processes of their own all the same, and run what the command line runs.
"""

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random
from typing import Any

BENCHMARKS = Path(__file__).parents[1]
SEARCHED = [str(BENCHMARKS.parent), str(BENCHMARKS)]
"""Where this checkout's modules are."""

PATIENCE = 300.0
"""Seconds after which a process is said to hang."""

WATCHED = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate"}
"""Operations (audit events) at which a process may die: those that make, move or delete files."""


@dataclass(frozen=True)
class Doom:
    """How a process is to end."""

    number: signal.Signals = signal.SIGKILL
    at: int | None = None
    """The operation on the folder's files before which it sends itself the signal."""
    seconds: float = 0.0
    """Otherwise, when the signal is sent from outside, after the start."""
    limit: int | None = None
    """Instead of a signal: a size that no file can be written beyond, from operation `at` on."""

    def __str__(self) -> str:
        """Say it in a few words."""
        if self.limit is not None:
            return f"no file above {self.limit} bytes from operation {self.at} on"
        when = f"at operation {self.at}" if self.at is not None else f"after {self.seconds:.3f} s"
        return f"{self.number.name} {when}"


def doom(rng: Random, operations: int, seconds: float) -> Doom:
    """Draw a way to die for work that takes so many operations and seconds."""
    number = draw_signal(rng)
    if rng.random() < 0.5:
        return Doom(number, at=rng.randrange(1, operations + 1))
    return Doom(number, seconds=rng.uniform(0, seconds))


def draw_signal(rng: Random) -> signal.Signals:
    return rng.choice([signal.SIGKILL] * 4 + [signal.SIGTERM, signal.SIGINT])


@dataclass(frozen=True)
class End:
    """How a process ended."""

    code: int
    """Its exit code, or minus the number of the signal that killed it."""
    output: str
    """What it printed."""
    hung: bool = False

    @property
    def last_line(self) -> str:
        """The last line of what it printed."""
        lines = [line.strip() for line in self.output.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "nothing was printed"

    @property
    def stopped(self) -> bool:
        """Whether it ended as a signal ends a process, at once or having put its work away."""
        codes = {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143}
        return self.code in codes and not self.hung

    def __str__(self) -> str:
        """Say it in a line."""
        return "it hung" if self.hung else f"exit code {self.code}: {self.last_line}"


def forked(
    work: Callable[..., Any], args: Sequence[Any], folder: Path, way: Doom | None = None
) -> End:
    """Run `work(*args)` in a forked process and return how that ended.

    Parameters
    ----------
    work
        A function of a module; what it returns is the exit code.
    args
        Its arguments.
    folder
        Where its files are, whose operations are counted; `operations_of` reads the number.
    way
        How it is to end; None lets it finish.
    """
    context = server()
    receiver, sender = context.Pipe(duplex=False)
    begun = context.Event()
    process = context.Process(target=_live, args=(begun, sender, work, tuple(args), folder, way))
    process.start()
    sender.close()
    said: list[bytes] = []
    reader = threading.Thread(target=_listen, args=(receiver, said), daemon=True)
    reader.start()
    if way is not None and way.at is None:
        begun.wait(PATIENCE)  # before, a signal would end the start of a process, and no work
        process.join(way.seconds)
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, way.number)
    process.join(PATIENCE)
    hung = process.is_alive()
    if hung:
        process.kill()
        process.join()
    code = process.exitcode or 0
    process.close()
    reader.join(5)
    return End(code, b"".join(said).decode(errors="replace"), hung)


@cache
def server() -> ForkServerContext:
    """Start the server that forks, with everything imported."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["robustness.warm"])
    changes = {"PYTHONPATH": os.pathsep.join([*SEARCHED, *sys.path]), "OMP_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)  # the server has no other way to find what it is to import
    try:
        forkserver.ensure_running()
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
    return context


def operations_of(folder: Path) -> int:
    """Return how many operations the last work on a folder took that was let to finish."""
    return int(_note(folder).read_text())


def _note(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.operations")


def _listen(pipe: Connection, said: list[bytes]) -> None:
    with pipe:
        while content := os.read(pipe.fileno(), 1 << 16):
            said.append(content)


def _live(
    begun: Event,
    pipe: Connection,
    work: Callable[..., Any],
    args: Sequence[Any],
    folder: Path,
    way: Doom | None,
) -> None:
    """Run inside of the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (1, 2):
        os.dup2(pipe.fileno(), number)  # no file: what it says is not to meet the limit of files
    pipe.close()
    # Those of the server may be of a file, whose place they would ask for.
    sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
    count = _count_operations(folder, way)
    try:
        begun.set()
        code = work(*args)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:  # before or after the command line would catch it
        code = 130
    if way is None:
        _note(folder).write_text(str(count[0]))
    sys.exit(code)


def _count_operations(folder: Path, way: Doom | None) -> list[int]:
    """Count operations on a folder's files, and end the process where that is its way."""
    count = [0]
    prefix = os.fspath(folder) + os.sep

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event not in WATCHED or not str(args[0]).startswith(prefix):
            return
        count[0] += 1
        if way is None or count[0] != way.at:
            return
        if way.limit is None:
            os.kill(os.getpid(), way.number)
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (way.limit, resource.RLIM_INFINITY))

    sys.addaudithook(hook)
    return count
