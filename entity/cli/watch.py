"""The command `drop watch`: a run in the terminal, from its record."""

import argparse
import shlex
import time
from collections.abc import Mapping
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from entity.api.progress import percent
from entity.cli import console
from entity.config.paths import user_path
from entity.record.json_fields import number
from entity.record.summary import tail_statistics
from entity.record.window import TITLES, Window, span
from entity.results.formatting import clock, compact_percent
from entity.results.watch import FollowedRun, refused_of, seconds_of, shares, sparkline

_SHOWN = 8
"""Rounds in the table."""

BAR = 24
"""Letters of the bar."""

_NAMES = 34
"""Letters for the refused clients of a round, so that a row fits 80 columns."""


def add_watch_command(commands: Any) -> None:
    """Add `drop watch`."""
    parser = commands.add_parser(
        "watch",
        help="follow a running experiment",
        description="Follow an experiment that another process runs, until it ends. Refused "
        "clients that did attack have a star.",
        epilog="Exit code 0 if the run is finished, 1 if it ended before that.",
        allow_abbrev=False,
    )
    parser.add_argument("run", type=user_path, metavar="RUN", help="run directory")
    add_pace_options(parser)
    parser.set_defaults(go=_watch)


def add_pace_options(parser: argparse.ArgumentParser) -> None:
    """Add how often what is followed is looked at."""
    parser.add_argument("--once", action="store_true", help="show its state once, and end")
    parser.add_argument(
        "--every",
        type=seconds_given,
        default=1.0,
        metavar="SECONDS",
        help="time between updates (default: 1)",
    )


def seconds_given(text: str) -> float:
    """Read the time between two updates."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds from 0.05 to 3600")
    return value


def _watch(options: argparse.Namespace) -> int:
    run = FollowedRun(options.run)
    if console.out.is_terminal:
        _show(run, options)
    else:
        _print_lines(run, options)
    console.out.print(_ending(run), soft_wrap=True)
    if run.damage:
        console.warn(f"{run.folder}: {run.damage}")
    return 0 if run.state in ("finished", "running") else 1


def _show(run: FollowedRun, options: argparse.Namespace) -> None:
    run.look()
    if options.once:
        console.out.print(_screen(run, console.out.width))
        return
    with Live(_screen(run, console.out.width), console=console.out, auto_refresh=False) as live:
        while run.state == "running":
            time.sleep(options.every)
            run.look()
            live.update(_screen(run, console.out.width), refresh=True)


def _print_lines(run: FollowedRun, options: argparse.Namespace) -> None:
    console.out.print(Text(run.title), soft_wrap=True)
    while True:
        new = run.look()
        for line in new[-1:] if options.once else new:
            left = run.left if line is new[-1] else None
            console.out.print(Text(_plain(run, line, left)), soft_wrap=True)
        if options.once or run.state != "running":
            return
        time.sleep(options.every)


def _plain(run: FollowedRun, line: Mapping[str, Any], left: float | None) -> str:
    text = (
        f"{line['round']:>3}/{run.rounds}  MTA {percent(number(line, 'mta'))}  "
        f"ASR {percent(number(line, 'asr'))}  refused {refused_of(line, _NAMES)}"
    )
    return text if left is None else f"{text}  left {clock(left)}"


def _screen(run: FollowedRun, width: int) -> RenderableType:
    head = Text(run.title, style="bold", overflow="ellipsis", no_wrap=True)
    left = "" if run.left is None else f"  left {clock(run.left)}"
    full = BAR * run.done // max(1, run.rounds)
    bar = Text.assemble(
        ("━" * full, "green"),
        ("─" * (BAR - full), "dim"),
        f"  round {run.done}/{run.rounds}  {run.state}{left}",
    )
    parts: list[RenderableType] = [head, bar]
    if run.damage:
        parts.append(Text(run.damage, style="red"))
    if run.lines:
        parts += [*_curves(run, width), _recent(run)]
    return Group(*parts)


def _curves(run: FollowedRun, width: int) -> list[Text]:
    curves: list[Text] = []
    for name, style in (("mta", "green"), ("asr", "red")):
        values = shares(run.lines, name)
        known = [value for value in values if value is not None]
        if known:
            curve = sparkline(values, max(10, min(60, width - 16)))
            curves.append(Text.assemble(f"{name.upper()} {percent(known[-1])}  ", (curve, style)))
    return curves


def _recent(run: FollowedRun) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("round", "MTA", "ASR", "s"):
        table.add_column(heading, justify="right")
    table.add_column("refused", no_wrap=True)
    for line in run.lines[-_SHOWN:]:
        table.add_row(
            str(line["round"]),
            percent(number(line, "mta")),
            percent(number(line, "asr")),
            f"{seconds_of(line):.1f}",
            refused_of(line, _NAMES),
        )
    return table


def _ending(run: FollowedRun) -> Text:
    """Return the last line: what the run came to, and what can be done now."""
    if run.state == "running":
        return Text(f"running: round {run.done} of {run.rounds} is done")
    mta, asr = (tail_statistics(_known(run, name), name)["last10"] for name in ("mta", "asr"))
    if run.state == "finished":
        window = Window.of([{"mta": number(x, "mta"), "asr": number(x, "asr")} for x in run.lines])
        rising = {name: " rising" if name in window.rising else "" for name in TITLES}
        shown = f"MTA {compact_percent(mta)}{rising['mta']}, ASR {compact_percent(asr)}"
        return Text(f"finished: mean of {span([window])}: {shown}{rising['asr']}")
    again = f"drop run --resume {shlex.quote(str(run.folder))}"
    why = f": {run.reason}" if run.reason else ""
    return Text(f"{run.state} after round {run.done} of {run.rounds}{why}; to go on: {again}")


def _known(run: FollowedRun, name: str) -> list[dict[str, float | None]]:
    return [{name: value} for value in shares(run.lines, name)]
