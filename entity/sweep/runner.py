"""Running cells side by side: if one fails, the others go on."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from entity.record.follow import last_line
from entity.results import store
from entity.results.store import ERROR
from entity.sweep.cells import Cell
from entity.sweep.place import Attempt, Place
from entity.sweep.worker import REFUSED

TICK = 1.0
"""Seconds between two looks at the clock."""


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished."""

    cell: Cell
    reason: str
    """The last line of its error.txt."""


class Watch(Protocol):
    """Receives the progress of a sweep."""

    def tick(self, running: Sequence[Attempt], waiting: Sequence[Cell]) -> None:
        """Look at what runs and what waits."""
        ...

    def finished(self, cell: Cell) -> None:
        """Take note of a run that is done; `cell.done` is what it came to."""
        ...

    def failed(self, failure: Failure, *, again: bool) -> None:
        """Take note of a run that failed, to be tried again or not."""
        ...


def run_cells(
    cells: Sequence[Cell], place: Place, watch: Watch, *, retry: bool = True
) -> list[Failure]:
    """Run cells, each in a process of its own.

    A cell whose run was interrupted goes on where it was. One that fails is tried once more after
    the others, unless its config or its folder was refused, which would happen again.

    Parameters
    ----------
    cells
        The cells, in the order in which they start.
    place
        Where to run them, and how many at a time.
    watch
        Receives the progress.
    retry
        Try failed cells once more.

    Returns
    -------
    list
        The cells that failed for good.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, when all workers have ended and saved their runs.
    """
    sweep = _Sweep(place, watch, retry, deque((cell, _begun(cell)) for cell in cells))
    try:
        while sweep.waiting or sweep.running:
            sweep.start_waiting()
            watch.tick(sweep.running, [cell for cell, _ in sweep.waiting])
            for attempt in place.over(sweep.running, TICK) if sweep.running else ():
                sweep.conclude(attempt)
    finally:
        place.stop(sweep.running)
    return sweep.failures


@dataclass
class _Sweep:
    """The cells that wait, those that run, and those that have failed for good."""

    place: Place
    watch: Watch
    retry: bool
    waiting: deque[tuple[Cell, bool]]
    """Cells, each with whether its run goes on where it was."""
    running: list[Attempt] = field(default_factory=list[Attempt])
    failures: list[Failure] = field(default_factory=list[Failure])
    retried: set[str] = field(default_factory=set[str])
    """Identities of the cells that failed once and were put back."""

    def start_waiting(self) -> None:
        """Start cells until as many run as there are jobs."""
        while self.waiting and len(self.running) < self.place.jobs:
            cell, resume = self.waiting.popleft()
            try:
                self.running.append(self.place.start(cell, resume=resume))
            except OSError as error:
                self.fail(Failure(cell, f"{cell.folder}: {error}"), again=False)

    def conclude(self, attempt: Attempt) -> None:
        """Take an attempt that is over off the running ones, and note what it came to."""
        self.running.remove(attempt)
        code = attempt.end()
        cell = replace(attempt.cell, done=store.read_row(attempt.cell.folder))
        if code == 0:
            self.watch.finished(cell)
            return
        # A resumed run that fails before its first round is started anew.
        stuck = attempt.resume and not attempt.rounds_run
        again = self.retry and code != REFUSED and cell.identity not in self.retried
        self.fail(Failure(cell, reason(cell)), again=again, resume=not stuck and _begun(cell))

    def fail(self, failure: Failure, *, again: bool, resume: bool = False) -> None:
        """Note a failure, and put the cell back behind the others if it is tried again."""
        self.watch.failed(failure, again=again)
        if again:
            self.retried.add(failure.cell.identity)
            self.waiting.append((failure.cell, resume))
        else:
            self.failures.append(failure)


def reason(cell: Cell) -> str:
    """Return why a cell failed, in a line."""
    return last_line(cell.folder / ERROR) or "no reason is known"


def _begun(cell: Cell) -> bool:
    return cell.done is not None and (cell.folder / "rounds.jsonl").exists()
