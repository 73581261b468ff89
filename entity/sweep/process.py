"""Cells on this machine: the worker process of each, seen from the sweep."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from entity.record.directory import ERROR
from entity.record.follow import ending
from entity.record.links import open_own
from entity.setup import resolve
from entity.sweep.cells import Cell
from entity.sweep.worker import TAKEN

OUTPUT = "output.log"
"""File of a run directory that takes what its worker prints and logs."""

GRACE = 30.0
"""Seconds that a worker has to save its run when it is to stop."""


class Process:
    """One attempt at a cell.

    Parameters
    ----------
    cell
        The cell to run.
    resume
        Resume the run in its folder; otherwise it starts from the beginning.
    """

    def __init__(self, cell: Cell, *, resume: bool) -> None:
        self.cell, self.resume = cell, resume
        self.round = 0
        """The last round that this attempt has finished."""
        self.rounds_run = 0
        """How many it has finished itself."""
        self.started = time.monotonic()
        self._rest = b""
        cell.folder.mkdir(parents=True, exist_ok=True)
        error = cell.folder / ERROR
        error.unlink(missing_ok=True)
        threads = str(cell.config.settings.num_threads)
        with open_own(cell.folder / OUTPUT, "ab" if resume else "wb") as output:
            self._process = subprocess.Popen(
                # -P: a file of the user's that is called like a module is not that module.
                [sys.executable, "-P", "-m", "entity.sweep.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": threads, "PYTHONPATH": _search_path()},
                process_group=0,  # Ctrl-C is the sweep's, which then stops its workers
            )
        config = resolve.to_json(cell.config)
        job = {
            "config": config,
            "folder": str(cell.folder),
            "error": str(error),
            "resume": resume,
        }
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # dead already, as `read` will find
            self._process.stdin.write(json.dumps(job).encode() + b"\n")
            self._process.stdin.flush()  # and not closed: see `worker`

    def fileno(self) -> int:
        """Return what to wait on: readable after a round, and at the end."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def read(self) -> bool:
        """Read the rounds that the worker reports; return False once it has ended."""
        content = os.read(self.fileno(), 1 << 16)
        *lines, self._rest = (self._rest + content).split(b"\n")
        if lines:
            self.round = int(lines[-1])
            self.rounds_run += len(lines)
        return bool(content)

    def end(self) -> int:
        """Wait for the process, and say in the run directory why it died if nothing does."""
        code = self.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()
        error = self.cell.folder / ERROR
        if code not in (0, TAKEN) and not error.exists():
            with suppress(OSError):  # a full disk
                error.write_text(f"{self._last_words()}{_cause(code)}\n", encoding="utf-8")
        return code

    def wait(self, seconds: float | None = None) -> int:
        """Wait for the end and return the exit code."""
        return self._process.wait(seconds)

    def terminate(self) -> None:
        """Ask it to save its run and end."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def _last_words(self) -> str:
        return ending(self.cell.folder / OUTPUT, 4000)


class ThisMachine:
    """The machine that the sweep runs on, as a place for cells."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def start(self, cell: Cell, *, resume: bool) -> Process:
        """Start a worker."""
        return Process(cell, resume=resume)

    def over(self, running: Sequence[Process], seconds: float) -> list[Process]:
        """Read what workers report, and return those that have ended."""
        with selectors.DefaultSelector() as selector:
            for process in running:
                selector.register(process, selectors.EVENT_READ, process)
            ready: list[Process] = [key.data for key, _ in selector.select(seconds)]
        return [process for process in ready if not process.read()]

    def stop(self, running: Sequence[Process]) -> None:
        """End workers: first by a signal, so that each saves its run, then by force."""
        for process in running:
            process.terminate()
        deadline = time.monotonic() + GRACE
        try:
            with suppress(subprocess.TimeoutExpired):
                for process in running:
                    process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also for a second Ctrl-C, which means at once
            for process in running:
                process.kill()
                process.wait()


def _cause(code: int) -> str:
    if code == -signal.SIGKILL:
        return "killed by SIGKILL, as the system does when memory runs out: try fewer jobs"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


def _search_path() -> str:
    """Return where this process finds modules, the user's own models included."""
    return os.pathsep.join(path or os.getcwd() for path in sys.path)
