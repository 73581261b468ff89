"""Running cells side by side: if one fails, the others go on."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from entity.config.schema import ConfigError
from entity.record.directory import ERROR
from entity.record.follow import last_line
from entity.results import store
from entity.sweep.cells import Cell, as_it_is_now
from entity.sweep.owners import Owners
from entity.sweep.place import Attempt, Place
from entity.sweep.worker import REFUSED, TAKEN

TICK = 1.0
"""Seconds between two looks at the clock."""

PATIENCE = 10.0
"""Seconds, at the end, that a run has to end which no sweep owns any more."""


@dataclass(frozen=True)
class Failure:
    """A cell that could not be finished."""

    cell: Cell
    reason: str
    """The last line of its error.txt, or who is at work on it."""
    elsewhere: bool = False
    """Whether it has not failed: another process is at work on it."""


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
    the others, unless its config or its folder was refused, which would happen again. Other sweeps
    may be at work in the same folder: what one of them has is left to it, and tried again as long
    as others run here; what one has finished is not done again.

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
        The cells that failed for good, and those that others are at work on.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, when all workers have ended and saved their runs.
    """
    sweep = _Sweep(place, watch, retry, deque(cells))
    try:
        while sweep.waiting or sweep.running or sweep.any_came_free():
            sweep.start_waiting()
            watch.tick(sweep.running, list(sweep.waiting))
            for attempt in place.over(sweep.running, TICK) if sweep.running else ():
                sweep.conclude(attempt)
    finally:
        try:
            place.stop(sweep.running)
        finally:
            sweep.owners.close()
    return sweep.failures


@dataclass
class _Sweep:
    """The cells that wait, those that run, and those that have failed for good."""

    place: Place
    watch: Watch
    retry: bool
    waiting: deque[Cell]
    elsewhere: list[Cell] = field(default_factory=list[Cell])
    """Those that another process is at work on."""
    owners: Owners = field(default_factory=Owners)
    running: list[Attempt] = field(default_factory=list[Attempt])
    failures: list[Failure] = field(default_factory=list[Failure])
    retried: set[str] = field(default_factory=set[str])
    """Identities of the cells that failed once and were put back."""

    def start_waiting(self) -> None:
        """Start cells until as many run as there are jobs."""
        if len(self.running) < self.place.jobs:
            self.waiting.extend(self.elsewhere)
            self.elsewhere.clear()
        while self.waiting and len(self.running) < self.place.jobs:
            cell = self.waiting.popleft()
            try:
                self._start(cell)
            except (OSError, ConfigError) as error:
                self.owners.release(cell)
                said = str(error) if isinstance(error, ConfigError) else f"{cell.folder}: {error}"
                self.fail(Failure(cell, said), again=False)

    def _start(self, cell: Cell) -> None:
        """Start a cell, unless another process has it or has finished it."""
        if self.owners.take(cell):
            self.elsewhere.append(cell)
            return
        cell = as_it_is_now(cell)
        if cell.state == "finished":
            self.owners.release(cell)
            self.watch.finished(cell)
            return
        self.running.append(self.place.start(cell, resume=_begun(cell)))

    def any_came_free(self) -> bool:
        """Whether other processes have let go of a cell; if not, note those that they have."""
        deadline = time.monotonic() + PATIENCE
        while True:
            owners = [self.owners.take(cell) for cell in self.elsewhere]
            for cell in self.elsewhere:
                self.owners.release(cell)
            if not all(owners):
                return True
            if not self.owners.orphans or time.monotonic() > deadline:
                break
            time.sleep(PATIENCE / 50)
        for cell, who in zip(self.elsewhere, owners, strict=True):
            self.failures.append(Failure(cell, f"{who} is at work on it", elsewhere=True))
        return False

    def conclude(self, attempt: Attempt) -> None:
        """Take an attempt that is over off the running ones, and note what it came to."""
        self.running.remove(attempt)
        code = attempt.end()
        self.owners.release(attempt.cell)
        cell = replace(attempt.cell, done=store.read_row(attempt.cell.folder))
        if code == 0:
            self.watch.finished(cell)
            return
        if code == TAKEN:
            self.elsewhere.append(cell)
            return
        again = self.retry and code != REFUSED and cell.identity not in self.retried
        self.fail(Failure(cell, reason(cell)), again=again)

    def fail(self, failure: Failure, *, again: bool) -> None:
        """Note a failure, and put the cell back behind the others if it is tried again."""
        self.watch.failed(failure, again=again)
        if again:
            self.retried.add(failure.cell.identity)
            self.waiting.append(failure.cell)
        else:
            self.failures.append(failure)


def reason(cell: Cell) -> str:
    """Return why a cell failed, in a line."""
    return last_line(cell.folder / ERROR) or "no reason is known"


def _begun(cell: Cell) -> bool:
    return cell.done is not None and (cell.folder / "rounds.jsonl").exists()
