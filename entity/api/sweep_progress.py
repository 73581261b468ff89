"""How far a sweep is: a bar in a terminal or notebook, a line for each finished run in any case."""

import time
from collections.abc import Iterable, Sequence

from rich.console import Console

from entity.api.progress import Bar, percent
from entity.results.formatting import clock
from entity.results.store import Run
from entity.sweep.cells import Cell
from entity.sweep.estimate import Pace, makespan
from entity.sweep.place import Attempt
from entity.sweep.runner import Failure


class SweepDisplay(Bar):
    """Shows the whole grid: runs done, running and failed, and the time left.

    Parameters
    ----------
    console
        Where to.
    total, done
        Runs of the sweep, and how many of them were finished before.
    jobs
        Runs side by side.
    known
        Finished runs to judge the time by.
    quiet
        Show nothing.
    """

    def __init__(
        self, console: Console, total: int, done: int, jobs: int, known: Iterable[Run] = (),
        *, quiet: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(console, "sweep", 24, total, done, quiet=quiet)
        self.total, self.done, self.jobs, self.quiet = total, done, jobs, quiet
        self.under_way = 0.0
        """Shares of the running runs that are done, added up."""
        self.failures = 0
        self.pace = Pace()
        for run in known:
            self.pace.add(run)
        self.left: float | None = None
        """Seconds until the end, None while they cannot be known."""
        self.started = time.monotonic()

    def __exit__(self, *error: object) -> None:
        """Leave the last state of the bar on the screen."""
        self.left, self.under_way = None, 0.0
        self._update("")
        super().__exit__(*error)

    def tick(self, running: Sequence[Attempt], waiting: Sequence[Cell]) -> None:
        """Show what runs and how long it will take."""
        self.left = self._left(running, waiting)
        self.under_way = sum(
            min(1.0, each.round / each.cell.config.federation.rounds) for each in running
        )
        self._update(f"  {len(running)} running")

    def finished(self, cell: Cell) -> None:
        """Show what a run came to."""
        self.done += 1
        assert cell.done is not None
        facts = cell.done.facts
        self.pace.add(cell.done)
        mta, asr, seconds = (
            value if isinstance(value := facts[name], float) else None
            for name in ("mta", "asr", "seconds")
        )
        self._tell(
            f"{self.done:>{len(str(self.total))}}/{self.total}  {cell.name}  MTA {percent(mta)}  "
            f"ASR {percent(asr)}  took {seconds or 0:.0f} s  {self._clock()}"
        )

    def failed(self, failure: Failure, *, again: bool) -> None:
        """Show why a run failed."""
        self.failures += not again
        then = "will be tried again" if again else f"see {failure.cell.folder}"
        self._tell(f"FAILED  {failure.cell.name}: {failure.reason} ({then})")

    def _tell(self, line: str) -> None:
        if not self.quiet:
            self.say(line)

    def _update(self, running: str) -> None:
        failed = f"  {self.failures} failed" if self.failures else ""
        facts = f"{self.done}/{self.total}{running}{failed}  {self._clock()}"
        self.move(self.done + self.under_way, facts)

    def _left(self, running: Sequence[Attempt], waiting: Sequence[Cell]) -> float | None:
        seconds = [_remaining(attempt, self.pace) for attempt in running]
        seconds += [self.pace.seconds(cell.config) for cell in waiting]
        known = [each for each in seconds if each is not None]
        return makespan(known, self.jobs) if len(known) == len(seconds) else None

    def _clock(self) -> str:
        if self.done + self.failures == self.total:
            return f"took {clock(time.monotonic() - self.started)}"
        return "left --:--" if self.left is None else f"left {clock(self.left)}"


def _remaining(attempt: Attempt, pace: Pace) -> float | None:
    """Judge a run by its own rounds where it has any, else by runs like it."""
    rounds = attempt.cell.config.federation.rounds
    if attempt.rounds_run:
        return attempt.seconds / attempt.rounds_run * (rounds - attempt.round)
    expected = pace.seconds(attempt.cell.config)
    return None if expected is None else max(0.0, expected - attempt.seconds)
