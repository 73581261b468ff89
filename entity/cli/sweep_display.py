"""How far a sweep is: a bar on a terminal, a line for each finished run in any case."""

import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from entity.cli.progress import percent
from entity.results.store import Run
from entity.sweep.cells import Cell
from entity.sweep.estimate import Pace, clock, makespan
from entity.sweep.place import Attempt
from entity.sweep.runner import Failure


class SweepDisplay:
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
    """

    def __init__(
        self, console: Console, total: int, done: int, jobs: int, known: Iterable[Run] = ()
    ) -> None:
        self.console, self.total, self.done, self.jobs = console, total, done, jobs
        self.failures = 0
        self.pace = Pace()
        for run in known:
            self.pace.add(run)
        self.left: float | None = None
        """Seconds until the end, None while they cannot be known."""
        self.started = time.monotonic()
        self.bar = Progress(
            TextColumn("sweep"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=console,
        )
        self.task = self.bar.add_task("sweep", total=total, completed=done, facts="starting")
        self.live = console.is_terminal

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state of the bar on the screen."""
        self.left = None
        self._update("")
        if self.live:
            self.bar.stop()

    def tick(self, running: Sequence[Attempt], waiting: Sequence[Cell]) -> None:
        """Show what runs and how long it will take."""
        self.left = self._left(running, waiting)
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
        self._say(
            f"{self.done:>{len(str(self.total))}}/{self.total}  {cell.name}  MTA {percent(mta)}  "
            f"ASR {percent(asr)}  took {seconds or 0:.0f} s  {self._clock()}"
        )

    def failed(self, failure: Failure, *, again: bool) -> None:
        """Show why a run failed."""
        self.failures += not again
        then = "will be tried again" if again else f"see {failure.cell.folder}"
        self._say(f"FAILED  {failure.cell.name}: {failure.reason} ({then})")

    def _update(self, running: str) -> None:
        failed = f"  {self.failures} failed" if self.failures else ""
        facts = f"{self.done}/{self.total}{running}{failed}  {self._clock()}"
        self.bar.update(self.task, completed=self.done, facts=facts)

    def _say(self, line: str) -> None:
        self.console.print(Text(line), soft_wrap=True)

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
