"""Running cells side by side: whatever becomes of one, the others go on."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

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
    """Who is told how the sweep goes on."""

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
        What to run, in this order.
    place
        Where to run them, and how many at a time.
    watch
        Told of progress.
    retry
        Try failed cells once more.

    Returns
    -------
    list
        The cells that failed for good.

    Raises
    ------
    KeyboardInterrupt
        On Ctrl-C, when all workers have ended and put their runs away.
    """
    waiting = deque((cell, _begun(cell)) for cell in cells)
    tried: set[str] = set()
    failures: list[Failure] = []
    running: list[Attempt] = []

    def book(cell: Cell, why: str, *, mendable: bool, resume: bool) -> None:
        again = retry and mendable and cell.identity not in tried
        watch.failed(Failure(cell, why), again=again)
        if again:
            tried.add(cell.identity)
            waiting.append((cell, resume))
        else:
            failures.append(Failure(cell, why))

    try:
        while waiting or running:
            while waiting and len(running) < place.jobs:
                cell, resume = waiting.popleft()
                try:
                    running.append(place.start(cell, resume=resume))
                except OSError as error:
                    book(cell, f"{cell.folder}: {error}", mendable=False, resume=False)
            watch.tick(running, [cell for cell, _ in waiting])
            for attempt in place.over(running, TICK) if running else ():
                running.remove(attempt)
                code = attempt.end()
                cell = replace(attempt.cell, done=store.read_row(attempt.cell.folder))
                if code == 0:
                    watch.finished(cell)
                else:
                    # What cannot be gone on with is started anew.
                    stuck = attempt.resume and not attempt.rounds_run
                    resume = not stuck and _begun(cell)
                    book(cell, reason(cell), mendable=code != REFUSED, resume=resume)
    finally:
        place.stop(running)
    return failures


def reason(cell: Cell) -> str:
    """Return why a cell failed, in a line."""
    try:
        lines = (cell.folder / ERROR).read_text("utf-8", errors="replace").split("\n")
    except OSError:
        return "no reason is known"
    return next((line.strip() for line in reversed(lines) if line.strip()), "no reason is known")


def _begun(cell: Cell) -> bool:
    return cell.done is not None and (cell.folder / "rounds.jsonl").exists()
