"""The command `drop sweep`: every experiment of a grid."""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from entity.cli import console
from entity.cli.sweep_display import SweepDisplay
from entity.config.schema import ConfigError
from entity.engine import cores
from entity.results import filter, store
from entity.results.store import Run
from entity.sweep.cells import Cell, expand
from entity.sweep.estimate import Pace, makespan
from entity.sweep.grid import Grid, read
from entity.sweep.on_ray import Cluster
from entity.sweep.process import Here
from entity.sweep.runner import Failure, reason, run_cells
from entity.trackers import require

RUNS = Path("runs")
"""Where runs lie if nothing else is said, and where finished ones are looked for to judge time."""


def add_sweep_command(commands: Any) -> None:
    """Add `drop sweep`."""
    sweep = commands.add_parser(
        "sweep",
        help="run a grid of experiments",
        description="Run every experiment of a grid file that is not finished yet, side by side.",
        epilog="Stop it at any time; the same command goes on with it.",
        allow_abbrev=False,
    )
    sweep.add_argument("grid", type=Path, help="YAML or JSON file; see the README")
    add_sweep_options(sweep, "GRID")
    sweep.set_defaults(go=_sweep)


def add_sweep_options(parser: argparse.ArgumentParser, grid: str) -> None:
    """Add what `sweep` reads; `grid` is the name of the positional in the help."""
    parser.add_argument("--out", type=Path, help=f"folder of the runs (default: runs/{grid})")
    parser.add_argument("--jobs", type=_jobs, help="runs side by side (default: one a core)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run them on a cluster of Ray: auto or HOST:PORT (extra)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    add_where(parser, "only runs of which this holds, such as defense=drop or 'DPR<0.3'")
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


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 1024")
    return int(text)


def _sweep(options: argparse.Namespace, rest: list[str]) -> int:
    grid = read(options.grid)
    folder = options.out or RUNS / options.grid.stem
    cells = cells_of(grid, folder, options)
    if options.dry_run:
        show_plan(str(options.grid), cells, folder, options)
        return 0
    failures = sweep(str(options.grid), cells, folder, options)
    done = len(cells) - len(failures)
    console.say(f"{done} of {len(cells)} runs are finished; `drop results {folder}` shows them")
    return 1 if failures else 0


def cells_of(grid: Grid, folder: Path, options: argparse.Namespace) -> list[Cell]:
    """Return the cells that the options choose.

    Raises
    ------
    ConfigError
        If a cell is no possible experiment, or none is chosen.
    """
    chosen = filter.parse(options.where)
    assignments = list(grid.assignments())
    names = {axis.name for axis in grid.axes}
    if options.where and all(one.name in names for each in chosen.alternatives for one in each):
        # Settled without the other cells, whose data need not be here then.
        meant = chosen.select(assignments)
        assignments = [cell for cell, one in zip(assignments, meant, strict=True) if one]
        if not assignments:
            _refuse_none(options.where, len(meant))
    return _chosen(expand(grid, folder, assignments), options.where)


def show_plan(name: str, cells: Sequence[Cell], folder: Path, options: argparse.Namespace) -> None:
    """Print which runs there are, and how long what is left of them will take."""
    for cell in cells:
        console.say(f"{cell.state:11}  {cell.folder}")
    console.say(f"{name}: {_counted(cells)}")
    waiting = [cell for cell in cells if _waits(cell, options.retry)]
    console.say(_duration(waiting, finished_runs(folder), options.jobs or cores()))


def sweep(
    name: str, cells: Sequence[Cell], folder: Path, options: argparse.Namespace
) -> list[Failure]:
    """Run what is not finished, and return what failed after having said so.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or a tracker's package is missing.
    """
    console.note(f"{name}: {_counted(cells)}")
    for cell in cells:
        require(cell.config.settings.trackers, cell.folder)
    _make(folder)
    waiting = [cell for cell in cells if _waits(cell, options.retry)]
    finished = sum(cell.state == "finished" for cell in cells)
    failures: list[Failure] = []
    if waiting:
        place = Cluster(options.ray, options.jobs) if options.ray else Here(options.jobs or cores())
        total = finished + len(waiting)
        with SweepDisplay(
            console.err, total, finished, place.jobs, finished_runs(folder)
        ) as display:
            failures = run_cells(waiting, place, display, retry=options.retry)
    if not options.retry:
        failures += [Failure(cell, reason(cell)) for cell in cells if cell.state == "failed"]
    for failure in failures:
        console.say(f"failed: {failure.cell.folder}: {failure.reason}")
    return failures


def _chosen(cells: Sequence[Cell], words: Sequence[str]) -> list[Cell]:
    if not words:
        return list(cells)
    meant = filter.parse(words).select([cell.row for cell in cells])
    chosen = [cell for cell, one in zip(cells, meant, strict=True) if one]
    if not chosen:
        _refuse_none(words, len(cells))
    return chosen


def _refuse_none(words: Sequence[str], runs: int) -> NoReturn:
    raise ConfigError(f"--where {' '.join(words)}: holds for none of the {runs} runs.")


def _waits(cell: Cell, retry: bool) -> bool:
    return cell.state != "finished" and (retry or cell.state != "failed")


def finished_runs(folder: Path) -> list[Run]:
    """Return what time can be judged by."""
    folders = [each for each in (folder, RUNS) if each.is_dir()]
    return [run for run in store.collect(folders) if run.finished]


def _counted(cells: Sequence[Cell]) -> str:
    counts = Counter(cell.state for cell in cells)
    states = ("finished", "interrupted", "failed", "new")
    parts = [f"{counts[state]} {state}" for state in states if counts[state]]
    return f"{_plural(len(cells), 'run')}: {', '.join(parts)}"


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _duration(waiting: Sequence[Cell], known: Sequence[Run], jobs: int) -> str:
    """Say how long it will take, or why that cannot be said."""
    if not waiting:
        return "nothing to do"
    pace = Pace()
    for run in known:
        pace.add(run)
    kinds = {(cell.config.dataset, cell.config.model): cell.config for cell in waiting}
    judged = {kind: pace.runs_like(config) for kind, config in kinds.items()}
    seconds = [pace.seconds(cell.config) for cell in waiting]
    sure = [each for each in seconds if each is not None]
    blind = " or ".join(f"{d} with {m}" for (d, m), runs in judged.items() if not runs)
    if not sure:
        return f"how long that takes cannot be known: no run of {blind} is finished yet"
    text = (
        f"about {_hours(makespan(sure, jobs))} with {_plural(jobs, 'job')}, judged by "
        f"{_plural(sum(judged.values()), 'finished run')} of the same data set and model"
    )
    unsure = len(seconds) - len(sure)
    return text + (
        f"; {unsure} of {blind}, of which none is finished, come on top" if blind else ""
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 360 else f"{seconds / 60:.1f} minutes"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written ({error.strerror}).") from error
