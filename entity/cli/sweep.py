"""The commands `drop sweep` and `drop results`."""

import argparse
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as Screen

from entity.cli.sweep_display import SweepDisplay
from entity.config.schema import ConfigError
from entity.engine import cores
from entity.record.directory import write_aside
from entity.results import duckdb_export, filter, store, tables
from entity.results.store import Run
from entity.results.tables import Table
from entity.sweep.cells import Cell, expand
from entity.sweep.estimate import Pace, makespan
from entity.sweep.grid import Grid, read
from entity.sweep.on_ray import Cluster
from entity.sweep.process import Here
from entity.sweep.runner import Failure, reason, run_cells
from entity.trackers import require

out = Console()
err = Console(stderr=True)

RUNS = Path("runs")
"""Where runs lie if nothing else is said, and where finished ones are looked for to judge time."""

_WRITERS: dict[str, Callable[[Table], str]] = {
    "csv": tables.to_csv,
    "md": tables.to_markdown,
    "latex": tables.to_latex,
}
_FOR_PROGRAMS = ("hash", "path")
_SUFFIXES = {".csv": "csv", ".md": "md", ".tex": "latex", ".parquet": "parquet"}


def add_sweep_commands(commands: Any) -> None:
    """Add `drop sweep` and `drop results`."""
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

    results = commands.add_parser(
        "results",
        help="all runs of a folder as one table",
        description="Show all runs in and below some folders as one table.",
        allow_abbrev=False,
    )
    results.add_argument("runs", type=Path, nargs="*", default=[RUNS], help="default: runs")
    _add_where(results, "only runs of which this holds, such as attack=dba or 'mta>=0.9'")
    results.add_argument("--by", help="columns, with commas between: mean ± sd over all other runs")
    results.add_argument("--sql", help="ask the table, which is called runs (extra `store`)")
    formats = ("table", *_WRITERS, "parquet")
    results.add_argument(
        "--format", choices=formats, help="default: by the name of --out, else table"
    )
    results.add_argument("--out", type=Path, help="file to write")
    results.set_defaults(go=_results)


def add_sweep_options(parser: argparse.ArgumentParser, grid: str) -> None:
    """Add what `sweep` reads; `grid` is the name of the positional in the help."""
    parser.add_argument("--out", type=Path, help=f"folder of the runs (default: runs/{grid})")
    parser.add_argument("--jobs", type=_jobs, help="runs side by side (default: one a core)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run them on a cluster of Ray: auto or HOST:PORT (extra)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what there is to do")
    _add_where(parser, "only runs of which this holds, such as defense=drop or 'DPR<0.3'")
    parser.add_argument(
        "--retry",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="try failed runs once more (default: yes)",
    )


def _add_where(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument(
        "--where", nargs="+", action="extend", default=[], metavar="CONDITION", help=text
    )


def _jobs(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 1024")
    return int(text)


# --- drop sweep


def _sweep(options: argparse.Namespace, rest: list[str]) -> int:
    grid = read(options.grid)
    folder = options.out or RUNS / options.grid.stem
    cells = cells_of(grid, folder, options)
    if options.dry_run:
        show_plan(str(options.grid), cells, folder, options)
        return 0
    failures = sweep(str(options.grid), cells, folder, options)
    done = len(cells) - len(failures)
    _print(f"{done} of {len(cells)} runs are finished; `drop results {folder}` shows them")
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
        _print(f"{cell.state:11}  {cell.folder}")
    _print(f"{name}: {_counted(cells)}")
    waiting = [cell for cell in cells if _waits(cell, options.retry)]
    _print(_duration(waiting, finished_runs(folder), options.jobs or cores()))


def sweep(
    name: str, cells: Sequence[Cell], folder: Path, options: argparse.Namespace
) -> list[Failure]:
    """Run what is not finished, and return what failed after having said so.

    Raises
    ------
    ConfigError
        If the folder cannot be written, or a tracker's package is missing.
    """
    err.print(f"{name}: {_counted(cells)}", markup=False, highlight=False, soft_wrap=True)
    for cell in cells:
        require(cell.config.settings.trackers, cell.folder)
    _make(folder)
    waiting = [cell for cell in cells if _waits(cell, options.retry)]
    finished = sum(cell.state == "finished" for cell in cells)
    failures: list[Failure] = []
    if waiting:
        place = Cluster(options.ray, options.jobs) if options.ray else Here(options.jobs or cores())
        total = finished + len(waiting)
        with SweepDisplay(err, total, finished, place.jobs, finished_runs(folder)) as display:
            failures = run_cells(waiting, place, display, retry=options.retry)
    if not options.retry:
        failures += [Failure(cell, reason(cell)) for cell in cells if cell.state == "failed"]
    for failure in failures:
        _print(f"failed: {failure.cell.folder}: {failure.reason}")
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


# --- drop results


def _results(options: argparse.Namespace, rest: list[str]) -> int:
    kind = options.format or _format_of(options.out)
    if kind == "parquet" and options.out is None:
        raise ConfigError("--format parquet: needs a file, --out FILE.")
    if options.sql and options.by:
        raise ConfigError("--sql and --by: choose one; SQL groups by itself.")
    found = store.collect(options.runs)
    runs = store.select(found, filter.parse(options.where))
    if not runs:
        among = " ".join(map(str, options.runs))
        holds = f", of which --where holds for none of {len(found)}" if found else ""
        _note(f"no runs in {among}{holds}")
    _write(_table_of(runs, options), kind, options.out)
    return 0


def _table_of(runs: Sequence[Run], options: argparse.Namespace) -> Table:
    if options.sql:
        return duckdb_export.query(store.table(runs), options.sql)
    if not options.by:
        return store.table(runs)
    by = [name.strip() for name in options.by.split(",") if name.strip()]
    if not by:
        raise ConfigError("--by: names no column.")
    unfinished = sum(not run.finished for run in runs)
    if unfinished:
        _note(f"{unfinished} of {len(runs)} runs are not finished and are left out")
    if pooled := store.pooled(runs, by):
        _note(f"rows pool runs that differ in {', '.join(pooled)}; --by can tell them apart")
    return store.grouped(runs, by)


def _format_of(path: Path | None) -> str:
    return "table" if path is None else _SUFFIXES.get(path.suffix.lower(), "table")


def _write(table: Table, kind: str, path: Path | None) -> None:
    if kind == "parquet":
        assert path is not None
        duckdb_export.write_parquet(table, path)
    elif kind != "table":
        text = _WRITERS[kind](table)
        if path is None:
            print(text, end="")
        else:
            _save(text, path)
    elif path is not None:
        _save(_text(table), path)
    elif out.is_terminal:
        out.print(_screen(table))
    else:
        print(_text(table), end="")
    if path is not None:
        _print(f"Written to {path}")


def _save(text: str, path: Path) -> None:
    try:
        write_aside(path, text.encode())
    except OSError as error:
        raise ConfigError(f"--out {path}: cannot be written ({error.strerror}).") from error


def _screen(table: Table) -> Screen:
    """Return what fits a terminal: figures are never folded, and some texts are left out."""
    screen = Screen(box=SIMPLE_HEAD, pad_edge=False)
    left_out = _FOR_PROGRAMS if out.width >= 110 else ("name", *_FOR_PROGRAMS)
    shown = [place for place, each in enumerate(table.columns) if each.name not in left_out]
    texts = table.texts()
    for column, cells in ((table.columns[i], [line[i] for line in texts]) for i in shown):
        widest = max(map(len, [*cells, ""]))
        screen.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="fold",
            min_width=widest if column.right else min(8, widest),
        )
    for line in texts:
        screen.add_row(*(line[place] for place in shown))
    return screen


def _text(table: Table) -> str:
    lines = [table.headings, *table.texts()]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _print(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def _note(line: str) -> None:
    err.print(f"drop: {line}", markup=False, highlight=False, soft_wrap=True)
