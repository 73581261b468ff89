"""How a running experiment shows itself: a bar on a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text


def percent(value: float | None) -> str:
    """Return a share as a percentage of fixed width, or a dash where there is none."""
    return f"{'-':>6}" if value is None else f"{100 * value:5.1f}%"


class Display:
    """Shows round, MTA, ASR, refusals and time left of one experiment.

    Parameters
    ----------
    console
        Where to; a bar if it is a terminal, a line a round otherwise.
    title
        Name of the run.
    rounds
        How many there will be.
    quiet
        Show nothing.
    """

    def __init__(self, console: Console, title: str, rounds: int, *, quiet: bool = False) -> None:
        self.console, self.title, self.rounds, self.quiet = console, title, rounds, quiet
        self.started = time.perf_counter()
        self.shown = 0
        """Rounds of this process; a run that goes on has more behind it."""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=12),
            TextColumn("{task.fields[facts]}"),
            console=console,
            transient=False,
        )
        self.task = self.bar.add_task(title, total=rounds, facts="starting")
        self.live = console.is_terminal and not quiet

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
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
        if self.live:
            self.bar.stop()

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Show a finished round."""
        self.shown += 1
        if self.quiet:
            return
        facts = (
            f"{line['round']:>3}/{self.rounds}  MTA {percent(line['mta'])}  "
            f"ASR {percent(line['asr'])}  refused {len(line['refused']):>2}  "
            f"{self._left(line['round'])}"
        )
        if self.live:
            self.bar.update(self.task, completed=line["round"], facts=facts)
        else:
            self.console.print(Text(f"{self.title}  {facts}"), soft_wrap=True)

    def _left(self, done: int) -> str:
        spent = time.perf_counter() - self.started
        if done == self.rounds:
            return f"took {spent:.0f} s"
        seconds = spent / self.shown * (self.rounds - done)
        hours, rest = divmod(round(seconds), 3600)
        clock = f"{rest // 60:02d}:{rest % 60:02d}"
        return f"left {hours}:{clock}" if hours else f"left {clock}"
