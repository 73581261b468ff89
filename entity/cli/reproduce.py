"""The command `drop reproduce`: a named study, and which of its cells came out as expected."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table as Screen
from rich.text import Text

from entity import __version__
from entity.cli import console
from entity.cli.refusals import given_by
from entity.cli.screen import fitted
from entity.cli.sweep import (
    add_acceptable,
    add_sweep_options,
    chosen_cells,
    duration,
    run_shown,
    show_plan,
    sweep_options,
)
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.record.atomic import write_atomically, writing
from entity.results.formatting import counted
from entity.sweep import study, verdict_table, verdicts
from entity.sweep.added_value import CannotAdd
from entity.sweep.additions import with_added
from entity.sweep.cells import Cell, as_they_are_now, expand, of_acceptable_rounds
from entity.sweep.estimate import Pace
from entity.sweep.grid import with_plugins
from entity.sweep.guess import for_gpu, guess
from entity.sweep.guess import seconds as guessed_seconds
from entity.sweep.plan import RUNS, SweepOptions, finished_runs, remaining
from entity.sweep.runner import Failure
from entity.sweep.setting import setting
from entity.sweep.study import Study
from entity.sweep.verdicts import Outcome
from entity.sweep.void import twins, void_cells

_OPTIONAL = ("DPR of all", "on victims", "n", "floor", "diff.")
"""Columns that are left out, in this order, where there is no room; the Markdown has them."""

_LABEL = 13
"""Letters of a label of a cell that are in one line at least."""

_FIGURE = len("or 94.00?")
"""Letters of a figure in doubt that are in one line at least: it is one of two."""

_OF_A_STUDY = (
    *("out", "jobs", "ray", "dry_run", "data_root", "plugins", "where", "quiet", "retry"),
    *("add", "skip_void", "acceptable", "markdown"),
)
"""Options that say something of the study that is named."""

_STYLES = {
    **{"reached": "green", "missed": "bold red", "unfinished": "yellow"},
    **{"void": "dim", "unknown": "yellow", "no figure": "dim"},
}


def add_reproduce_command(commands: Any) -> None:
    """Add `drop reproduce`."""
    parser = commands.add_parser(
        "reproduce",
        help="run a named study and check what comes out",
        description="Run a named study, and say which of its cells came out as expected. Without "
        "a name, list the studies. A method of your own stands beside the study's: "
        "--plugins norm_gate.py --add defense=norm_gate norm_gate.factor=1.5.",
        epilog="Exit code 0 if every cell reached what is expected, 1 if one did not. Stop it at "
        "any time; the same command goes on with it.",
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help=", ".join(study.names()))
    add_sweep_options(parser, "NAME")
    parser.add_argument(
        "--add",
        nargs="+",
        action="extend",
        default=[],
        metavar="AXIS=NAME",
        help="methods beside those of an axis, of a plugin or shipped, with commas between, and "
        "their settings as NAME.FIELD=VALUE; docs/extend/defense.md",
    )
    parser.add_argument(
        "--skip-void",
        action="store_true",
        help="begin with the runs in which nobody defends, and leave out the others where the "
        "attack does not work then, which count for nobody",
    )
    add_acceptable(parser)
    parser.add_argument(
        "--markdown", type=user_path, metavar="FILE", help="write the table there, too"
    )
    parser.set_defaults(go=partial(_reproduce, parser))


def _reproduce(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    if options.name is None:
        _refuse_options(parser, options)
        console.out.print(_listing())
        console.paragraph(
            "Hours are judged by finished runs in runs/ where there are any, else as said here:"
        )
        takes: dict[str, list[str]] = {}
        for each in map(study.find, study.names()):
            takes.setdefault(each.takes, []).append(each.name)
        for text, names in takes.items():
            name = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
            console.paragraph(f"{name}: {text}")
        return 0
    chosen = _study(options)
    if options.skip_void and chosen.void is None:
        raise ConfigError(f"--skip-void: {chosen.name} does not say which of its cells are void.")
    if options.acceptable is not None and options.skip_void:
        raise ConfigError(
            "--acceptable: has no effect on what --skip-void leaves out; choose one of them."
        )
    if options.acceptable is not None and options.dry_run:
        raise ConfigError("--acceptable: --dry-run runs nothing, so there is no round to judge.")
    if options.markdown is not None and not options.markdown.parent.is_dir():
        raise ConfigError(f"--markdown {options.markdown}: there is no folder for it.")
    asked = sweep_options(options, RUNS / chosen.folder)
    cells = chosen_cells(chosen.grid, asked)
    planned = _that_count(chosen, cells, asked) if options.skip_void else cells
    if options.dry_run:
        if chosen.published is not None:
            console.paragraph(setting(chosen, ((cell.labels, cell.config) for cell in planned)))
        show_plan(chosen.name, planned, asked, guess)
        console.paragraph(f"The study says of itself: {chosen.takes}")
        if options.markdown is not None:
            console.note(f"{options.markdown} is not written: nothing was run")
        return 0
    if remaining(planned, asked):
        console.note(f"{chosen.name}: {duration(planned, asked, guess)}")
    run = _run_those_that_count if options.skip_void else _run_all
    failures = run(chosen, cells, asked, quiet=options.quiet)
    cells = as_they_are_now(chosen.grid, asked.folder, cells)
    twin = _twins(chosen, cells, asked)
    if (level := options.acceptable) is not None:
        cells, twin = (of_acceptable_rounds(each, level) for each in (cells, twin))
    outcomes = verdicts.judge(chosen, cells, twin)
    console.out.print(_screen(chosen, outcomes))
    for line in verdict_table.remarks(chosen, outcomes, level):
        console.paragraph(line)
    if options.markdown is not None:
        made_by = f"`{_command(options)}` of drop-fl `{__version__}`"
        _write(verdict_table.to_markdown(chosen, outcomes, made_by, level), options.markdown)
    poor = any(outcome.verdict in ("missed", "unfinished", "unknown") for outcome in outcomes)
    return 1 if failures or poor else 0


def _refuse_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse options that say nothing of a list of all studies."""
    for name in _OF_A_STUDY:
        if getattr(options, name) != parser.get_default(name):
            other = {"retry": "--no-retry", "data_root": "--data_root"}
            said = other.get(name, f"--{name.replace('_', '-')}")
            raise ConfigError(f"{said}: needs the NAME of a study, one of those in the list.")


def _run_all(
    chosen: Study, cells: Sequence[Cell], asked: SweepOptions, *, quiet: bool
) -> list[Failure]:
    return run_shown(chosen.name, cells, asked, quiet=quiet)


def _run_those_that_count(
    chosen: Study, cells: Sequence[Cell], asked: SweepOptions, *, quiet: bool
) -> list[Failure]:
    """Run the cells in which nobody defends, and then those where the attack has worked."""
    undefended = _twins(chosen, cells, asked)
    failures = run_shown(f"{chosen.name}, undefended", undefended, asked, quiet=quiet)
    count = {cell.identity for cell in _that_count(chosen, cells, asked)}
    left = [cell for cell in remaining(cells, asked) if cell.identity not in count]
    if left:
        console.note(
            f"{counted(len(left), 'run', ' ')} left out: the attack does not work there where "
            "nobody defends"
        )
    done = {cell.identity for cell in undefended}
    rest = [cell for cell in cells if cell.identity in count - done]
    return [*failures, *run_shown(chosen.name, rest, asked, quiet=quiet)] if rest else failures


def _that_count(chosen: Study, cells: Sequence[Cell], asked: SweepOptions) -> list[Cell]:
    """Return the cells in which nobody defends, and those that are not known to be void by them."""
    undefended = _twins(chosen, cells, asked)
    left_out = void_cells(chosen.void, cells, undefended) | {cell.identity for cell in undefended}
    return [*undefended, *(cell for cell in cells if cell.identity not in left_out)]


def _twins(chosen: Study, cells: Sequence[Cell], asked: SweepOptions) -> list[Cell]:
    return twins(chosen.void, chosen.grid, asked.folder, cells)


def _study(options: argparse.Namespace) -> Study:
    """Return the study that is named, with the methods that `--add` adds."""
    chosen = study.find(options.name)
    chosen = replace(chosen, grid=with_plugins(chosen.grid, options.plugins))
    with given_by("--add", CannotAdd):
        return with_added(chosen, options.add)


def _command(options: argparse.Namespace) -> str:
    words = ["drop", "reproduce", options.name]
    for name in ("plugins", "add", "where"):
        given = getattr(options, name)
        words += [f"--{name}", *given] if given else []
    words += [] if options.acceptable is None else ["--acceptable", f"{options.acceptable:g}"]
    return shlex.join(words)


def _write(text: str, path: Path) -> None:
    with given_by("--markdown"), writing(path):
        write_atomically(path, text.encode(errors="backslashreplace"))
    console.say(f"Written to {path}")


def _screen(chosen: Study, outcomes: Sequence[Outcome]) -> Screen:
    """Return the table, as wide as the terminal: figures and verdicts are never cut."""
    table, title = verdict_table.verdict_table(chosen, outcomes), chosen.title
    common = _common(chosen, outcomes)
    if common and not table.fits(console.out.width):
        table = table.without(common)
        title = f"{title}\n{', '.join(map(' '.join, common.items()))}"  # is said once
    screen = Screen(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD,
        show_edge=False, padding=0,
    )  # fmt: skip
    optional = [*_OPTIONAL]
    if chosen.published is None and not any(each.asr for each in chosen.expectations):
        optional.append("ASR")  # worst ASR is judged
    folded = {**dict.fromkeys(chosen.axes, _LABEL), "paper": _FIGURE}
    widths = fitted(table, console.out.width, optional, folded)
    for place, width in widths.items():
        column = table.columns[place]
        justify = "right" if column.right or column.name in ("paper", "diff.") else "left"
        screen.add_column(column.heading, justify=justify, overflow="fold", width=width)
    for cells, outcome in zip(table.texts(), outcomes, strict=True):
        *texts, verdict = (cells[i] for i in widths)
        screen.add_row(*texts, Text(verdict, _STYLES[outcome.verdict]))
    return screen


def _common(chosen: Study, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Return the labels that all outcomes have, by their axes."""
    labels = {
        axis: {outcome.labels[place] for outcome in outcomes}
        for place, axis in enumerate(chosen.axes)
    }
    return {axis: each.pop() for axis, each in labels.items() if len(each) == 1}


def _listing() -> Screen:
    screen = Screen(box=SIMPLE_HEAD, pad_edge=False)
    screen.add_column("study")
    screen.add_column("what it shows")
    for heading in ("runs", "done", "hours"):
        screen.add_column(heading, justify="right")
    for each in map(study.find, study.names()):
        folder = RUNS / each.folder
        try:
            if not folder.exists():
                raise ConfigError("nothing is there that would tell more than the file does")
            cells = expand(each.grid, folder)
        except ConfigError:  # its data is not here, as `drop reproduce NAME` will say
            runs, done, hours = sum(1 for _ in each.grid.assignments()), "-", each.hours
        else:
            runs, done = len(cells), str(sum(cell.state == "finished" for cell in cells))
            hours = _hours(cells, folder, each.hours)
        shown = "-" if hours is None else f"{hours:.1f}" if hours >= 0.1 else f"{hours:.2f}"
        screen.add_row(each.name, each.title, str(runs), done, shown)
    return screen


def _hours(cells: Sequence[Cell], folder: Path, otherwise: float | None) -> float | None:
    """Estimate all runs of a study by finished ones, and by a guess of those they cannot tell of.

    Runs for a GPU are one after another, the others one on each core of two.
    """
    pace, total, judged = Pace(), 0.0, False
    for run in finished_runs(folder):
        pace.add(run)
    for cell in cells:
        seconds = pace.seconds(cell.config)
        judged |= seconds is not None
        if seconds is None and (seconds := guessed_seconds(cell.config)) is None:
            return otherwise
        total += seconds / (1 if for_gpu(cell.config) else 2)
    return total / 3600 if judged else otherwise
