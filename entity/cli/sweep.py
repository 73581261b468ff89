"""The command `drop sweep`: every experiment of a grid."""

import argparse
import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from entity.api.sweep import run_grid, sweep_name
from entity.cli import console
from entity.cli.options import CONFIG_HELP, add_plugins, values_of
from entity.cli.refusals import given_by
from entity.cli.screen import show
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.config.shipped import names as shipped_names
from entity.engine import cores
from entity.record.atomic import CannotWrite
from entity.results import store
from entity.results.filter import BadCondition, BadField
from entity.results.formatting import counted
from entity.sweep import data
from entity.sweep.cells import Cell, as_they_are_now
from entity.sweep.estimate import OWN_TRAINING, Pace, makespan, widest
from entity.sweep.grid import Grid, with_plugins
from entity.sweep.grid_file import of_axes, read, with_axes
from entity.sweep.plan import (
    RUNS,
    SweepOptions,
    choose_cells,
    finished_runs,
    remaining,
    side_by_side,
)
from entity.sweep.runner import Failure
from entity.sweep.table import sweep_table

Guess = Callable[[Sequence[ExperimentConfig]], tuple[str, list[ExperimentConfig]]]
"""Says how long experiments may take, and of which it cannot."""


def add_sweep_command(commands: Any) -> None:
    """Add `drop sweep`."""
    sweep = commands.add_parser(
        "sweep",
        help="run a grid of experiments",
        description="Run every experiment of a grid that is not finished yet, side by side: of a "
        "file, or of a configuration and fields with several values. Fields beside a file are "
        "more of its axes.",
        usage="%(prog)s (GRID | --config FILE[,FILE]) [OPTION ...] [--FIELD VALUE[,VALUE ...] ...]",
        epilog="Stop it at any time; the same command goes on with it.",
        allow_abbrev=False,
        takes_axes=True,
    )
    sweep.add_argument(
        "grid",
        type=user_path,
        nargs="?",
        metavar="GRID",
        help="YAML or JSON file (docs/guide/sweeps.md), or what --config takes by its name",
    )
    sweep.add_argument(
        "--config",
        metavar="FILE",
        help=f"instead of a grid: {CONFIG_HELP}; several are separated by commas",
    )
    add_sweep_options(sweep, "GRID")
    sweep.set_defaults(go=_sweep)


def add_sweep_options(parser: argparse.ArgumentParser, grid: str) -> None:
    """Add what `sweep` reads; `grid` is the name of the positional in the help."""
    parser.add_argument(
        "--out", type=user_path, metavar="FOLDER", help=f"folder of the runs (default: runs/{grid})"
    )
    parser.add_argument(
        "--jobs",
        type=_jobs,
        metavar="N",
        help="runs side by side (default: one a core; with a GPU, one)",
    )
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run them on a cluster of Ray: auto or HOST:PORT (extra)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    parser.add_argument(
        "--data_root", type=user_path, metavar="FOLDER", help="data folder, before DROP_DATA"
    )
    add_plugins(parser, "Python files, folders and modules for all runs, beside those of the grid")
    add_where(parser, "only runs of which this holds, such as defense=drop or 'DPR<0.3'")
    parser.add_argument("--quiet", action="store_true", help="show nothing but what failed")
    parser.add_argument(
        "--retry",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="try failed runs once more (default: yes)",
    )


def add_where(parser: argparse.ArgumentParser, text: str) -> None:
    """Add `--where`."""
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="CONDITION", help=text
    )


def add_acceptable(parser: argparse.ArgumentParser) -> None:
    """Add `--acceptable`."""
    parser.add_argument(
        "--acceptable",
        type=_share,
        metavar="MTA",
        help="worst ASR of the rounds with at least this MTA, from 0 to 1 (default: 0.9 of the "
        "run's last)",
    )


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no number from 0 to 1")
    return value


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 1024")
    return int(text)


def sweep_options(options: argparse.Namespace, folder: Path) -> SweepOptions:
    """Read what `add_sweep_options` adds, with `folder` where there is no `--out`."""
    if options.data_root is not None:
        os.environ["DROP_DATA"] = str(options.data_root)  # which the processes of the runs inherit
    return SweepOptions(
        folder=options.out or folder,
        where=tuple(options.where),
        jobs=options.jobs,
        ray=options.ray,
        retry=options.retry,
    )


def _sweep(options: argparse.Namespace) -> int:
    grid, name, folder = _grid(options)
    grid = with_plugins(grid, options.plugins)
    asked = sweep_options(options, RUNS / folder)
    cells = chosen_cells(grid, asked)
    if options.dry_run:
        show_plan(name, cells, asked)
        return 0
    failures = run_shown(name, cells, asked, quiet=options.quiet)
    if not options.quiet:
        cells = as_they_are_now(grid, asked.folder, cells)
        show(sweep_table(grid, cells), ("tpr", "fpr", "seconds"))
        whole = [cell.done for cell in cells if cell.done and cell.done.finished]
        for line in store.remarks(whole):
            console.note(line)
        if len({cell.config.settings.seed for cell in cells}) > 1:
            console.note("The worst ASR is the highest of all seeds.")
        done = len(cells) - len(failures)
        console.say(
            f"{done} of {len(cells)} runs are finished; `drop results {asked.folder}` shows them"
        )
    return 1 if failures else 0


def _grid(options: argparse.Namespace) -> tuple[Grid, str, str]:
    """Return the grid, what it is called, and its folder in `RUNS`."""
    if options.config is None and _is_shipped(options.grid):
        options.grid, options.config = None, options.grid.as_posix()
    if options.grid is not None:
        if options.config is not None and not options.grid.exists():
            raise ConfigError(
                f'"{options.grid}" belongs to no option; several values of a field have commas '
                "between them, such as --seed 1,2."
            )
        if options.config is not None:
            raise ConfigError(
                f"--config {options.config}: {options.grid} has a base; leave one of them out."
            )
        return with_axes(read(options.grid), options.axes), str(options.grid), options.grid.stem
    if options.config is None:
        raise ConfigError("drop sweep: needs a grid file, or --config with fields to vary.")
    configs = values_of("config", options.config)
    name = sweep_name(configs)
    return of_axes(configs, options.axes, "sweep"), name, name


def _is_shipped(grid: Path | None) -> bool:
    """Return whether that is no file but a shipped configuration's name, or some with commas."""
    if grid is None or grid.exists():
        return False
    return set(grid.as_posix().split(",")) <= set(shipped_names())


def chosen_cells(grid: Grid, options: SweepOptions) -> list[Cell]:
    """Return the cells that `--where` chooses.

    Raises
    ------
    ConfigError
        If there are none, or one of them is no possible experiment.
    """
    with given_by("--where", BadCondition), given_by("--where:", BadField):
        return choose_cells(grid, options)


def show_plan(
    name: str, cells: Sequence[Cell], options: SweepOptions, guess: Guess | None = None
) -> None:
    """Print which runs there are, and how long the remaining ones will take.

    Parameters
    ----------
    name
        Of the grid or the study.
    cells
        The chosen cells.
    options
        How they would be run.
    guess
        Says how long those take of which no finished run can tell.
    """
    if not options.ray:  # whose machines have data of their own
        data.refuse_changed(cells)
    for cell in cells:
        console.say(f"{cell.state:11}  {cell.folder}")
    console.say(f"{name}: {_counted(cells)}")
    console.say(duration(cells, options, guess))
    if not options.ray:
        for said in data.forecast(remaining(cells, options)):
            console.warn(said)


def run_shown(
    name: str, cells: Sequence[Cell], options: SweepOptions, *, quiet: bool = False
) -> list[Failure]:
    """Run the remaining cells, show how it goes, and print the failures and return them.

    Parameters
    ----------
    name
        Of the grid or the study.
    cells
        The chosen cells.
    options
        How they are run.
    quiet
        Show the failures alone.

    Raises
    ------
    ConfigError
        If data is missing, the folder cannot be written, a tracker's package is missing, or there
        is no cluster.
    """
    if not quiet:
        console.note(f"{name}: {_counted(cells)}")
    with given_by("--out", CannotWrite):
        failures = run_grid(cells, options, console.err, quiet=quiet, ray_option="--ray")
    for failure in failures:
        said = "left" if failure.elsewhere else "failed"
        console.say(f"{said}: {failure.cell.folder}: {failure.reason}")
    return failures


def _counted(cells: Sequence[Cell]) -> str:
    counts = Counter(cell.state for cell in cells)
    states = ("finished", "interrupted", "failed", "new")
    parts = [f"{counts[state]:,} {state}" for state in states if counts[state]]
    return f"{counted(len(cells), 'run', ' ')}: {', '.join(parts)}"


def duration(cells: Sequence[Cell], options: SweepOptions, guess: Guess | None = None) -> str:
    """Say how long the remaining runs take, or why that cannot be said.

    Parameters
    ----------
    cells
        The chosen cells.
    options
        How they are run.
    guess
        Says how long those take of which no finished run can tell.
    """
    waiting = [cell.config for cell in remaining(cells, options)]
    if not waiting:
        return "nothing to do"
    pace = Pace()
    for run in finished_runs(options.folder):
        pace.add(run)
    seconds = [pace.seconds(config) for config in waiting]
    sure = [each for each in seconds if each is not None]
    unsure = [config for config, each in zip(waiting, seconds, strict=True) if each is None]
    guessed, blind = guess(unsure) if guess else ("", unsure)
    names = " or ".join(dict.fromkeys(_kind(config, pace) for config in blind))
    if len(blind) == len(waiting):
        return f"how long that takes cannot be known: no run of {names} is finished yet"
    parts: list[str] = []
    if sure:
        judged = {widest(config): pace.runs_like(config) for config in waiting}
        jobs = options.jobs or side_by_side()
        at_once = jobs if options.ray else min(jobs, cores())  # more share these cores
        parts.append(
            f"about {_hours(makespan(sure, at_once))} with {counted(jobs, 'job', ' ')}, judged by "
            f"{counted(sum(judged.values()), 'finished run', ' ')} of the same data set and model"
        )
    if guessed:
        others = len(unsure) - len(blind)
        parts.append(f"{counted(others, 'more run', ' ')}: {guessed}" if sure else guessed)
    if blind:
        parts.append(f"{len(blind)} of {names}, of which none is finished, come on top")
    return "; ".join(parts)


def _kind(config: ExperimentConfig, pace: Pace) -> str:
    """Name the runs of which none is finished: those that distil, if others are."""
    defense = config.server.defense.type
    how = "trained" if defense in OWN_TRAINING else "distilled"
    by = f", {how} by {defense}" if how == "trained" or pace.runs_like(config) else ""
    return f"{config.dataset} with {config.model}{by}"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 360 else f"{seconds / 60:.1f} minutes"
