"""How a running experiment shows itself: a bar in a terminal or notebook, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from entity.api.notebook import Output, in_notebook
from entity.results.formatting import clock, compact_percent


def percent(share: float | None) -> str:
    """Return a share with as many letters as 100.0% has, so that lines are columns."""
    return compact_percent(share, width=6)


class Bar:
    """A bar with a title before it and facts behind it, while a block of code runs.

    Parameters
    ----------
    console
        Where to; there is no bar if it is no terminal, but in a notebook.
    title
        Text before the bar.
    width
        Letters of the bar.
    total, done
        Steps in all, and how many of them were done before.
    quiet
        Show no bar in any case.
    """

    def __init__(
        self, console: Console, title: str, width: int, total: int, done: int = 0,
        *, quiet: bool = False,
    ) -> None:  # fmt: skip
        self.console = console
        self.output = Output(title, total) if in_notebook() and not quiet else None
        self.live = console.is_terminal and not quiet and self.output is None
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=width),
            TextColumn("{task.fields[facts]}", markup=False),
            console=console,
        )
        self.task = self.bar.add_task(title, total=total, completed=done, facts="starting")

    def __enter__(self) -> Self:
        if self.live:
            self.bar.start()
        if self.output is not None:
            self.output.show()
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the last state of the bar on the screen."""
        if self.live:
            self.bar.stop()

    @property
    def drawn(self) -> bool:
        """Whether there is a bar."""
        return self.live or self.output is not None

    def move(self, done: float, facts: str) -> None:
        """Show how many steps are done, and the facts."""
        self.bar.update(self.task, completed=done, facts=facts)
        if self.output is not None:
            self.output.done, self.output.facts = done, facts
            self.output.show()

    def say(self, line: str) -> None:
        """Print a line as it is, above the bar."""
        if self.output is not None:
            self.output.lines.append(line)
            self.output.show()
        else:
            self.console.print(Text(line), soft_wrap=True)


class Display(Bar):
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
    log
        Takes a plain line a round, too, where it is no terminal: standard output in a file. There
        is no line elsewhere then.
    """

    def __init__(
        self, console: Console, title: str, rounds: int, *, quiet: bool = False,
        log: Console | None = None,
    ) -> None:  # fmt: skip
        super().__init__(console, title, 12, rounds, quiet=quiet)
        self.title, self.rounds, self.quiet = title, rounds, quiet
        self.log = None if log is None or log.is_terminal or self.output is not None else log
        self.started = time.perf_counter()
        self.shown = 0
        """Rounds of this process; a run that goes on has more behind it."""

    def __enter__(self) -> Self:
        self.started = time.perf_counter()
        return super().__enter__()

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
        if self.drawn:
            self.move(line["round"], facts)
        if self.log is not None:
            self._write(self.log, f"{self.title}  {facts}")
        elif not self.drawn:
            self.say(f"{self.title}  {facts}")

    def _write(self, log: Console, line: str) -> None:
        """Write to the log at once, for whoever follows it; the run outlives its reader."""
        try:
            log.file.write(f"{line}\n")  # rich would end the program for a closed pipe
            log.file.flush()
        except BrokenPipeError:
            self.log = None

    def _left(self, done: int) -> str:
        spent = time.perf_counter() - self.started
        if done == self.rounds:
            return f"took {spent:.0f} s"
        return f"left {clock(spent / self.shown * (self.rounds - done))}"
