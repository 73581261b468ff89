"""The command `drop results`: all runs of a folder as one table."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from entity.cli import console
from entity.cli.refusals import given_by
from entity.cli.report import add_names, names_given
from entity.cli.screen import as_text, show
from entity.cli.sweep import add_acceptable, add_where
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.record.atomic import CannotWrite, write_atomically, writing
from entity.results import duckdb_export, filter, store, tables
from entity.results.duckdb_export import BadQuery, NoDuckDB
from entity.results.filter import BadCondition, BadField
from entity.results.formatting import counted
from entity.results.store import Run
from entity.results.tables import Table
from entity.results.titles import with_titles
from entity.sweep import study
from entity.sweep.grid import Grid
from entity.sweep.grid_file import read
from entity.sweep.labelled_runs import labelled_runs
from entity.sweep.plan import RUNS

_WRITERS: dict[str, Callable[[Table], str]] = {
    "csv": tables.to_csv,
    "md": tables.to_markdown,
    "latex": tables.to_latex,
}
_FOR_READERS = ("md", "latex")
"""Formats with the published names of methods."""
_SUFFIXES = {".csv": "csv", ".md": "md", ".tex": "latex", ".parquet": "parquet", ".txt": "table"}


def add_results_command(commands: Any) -> None:
    """Add `drop results`."""
    parser = commands.add_parser(
        "results",
        help="show all runs of a folder as one table",
        description="Show all runs in and below some folders as one table.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "runs", type=user_path, nargs="*", default=[RUNS], metavar="FOLDER", help="default: runs"
    )
    add_where(parser, "only runs of which this holds, such as attack=dba or 'mta>=0.9'")
    add_acceptable(parser)
    parser.add_argument(
        "--labels",
        metavar="STUDY",
        help="study, or grid file, whose labels the runs of it have as more columns: --labels "
        "configurations --where configuration=C3",
    )
    parser.add_argument(
        "--by",
        metavar="COLUMNS",
        help="a row for each value of these columns, separated by commas: mean ± sd of its runs",
    )
    parser.add_argument(
        "--sql", metavar="QUERY", help="query the table, which is called runs (extra `store`)"
    )
    formats = ("table", *_WRITERS, "parquet")
    parser.add_argument(
        "--format", choices=formats, help="default: by the name of --out, else table"
    )
    parser.add_argument("--out", type=user_path, metavar="FILE", help="file to write")
    add_names(parser, "Markdown and LaTeX")
    parser.set_defaults(go=_results)


def _results(options: argparse.Namespace) -> int:
    kind = options.format or _format_of(options.out)
    if kind == "parquet" and options.out is None:
        raise ConfigError("--format parquet: needs a file, --out FILE.")
    if options.sql and options.by:
        raise ConfigError("--sql and --by: choose one; SQL groups by itself.")
    names = names_given(options.names)
    if names and kind not in _FOR_READERS:
        raise ConfigError(
            f"--names: has no effect on --format {kind}; it is for {' and '.join(_FOR_READERS)}."
        )
    found = store.collect(options.runs)
    if options.acceptable is not None:
        found = store.of_acceptable_rounds(found, options.acceptable)
    if options.labels is not None:
        grid = _grid(options.labels)
        with given_by(f"--labels {options.labels}:"):
            found = labelled_runs(found, grid)
    runs = _chosen(found, options)
    if not runs:
        among = " ".join(map(str, options.runs))
        said = f"--where holds for none of the {len(found)} runs" if found else "no runs"
        console.warn(f"{said} in {among}")
    table = _table_of(runs, options)
    _write(with_titles(table, names) if kind in _FOR_READERS else table, kind, options.out)
    for line in store.remarks(_shown(runs, options)):
        console.note(line)
    return 0


def _chosen(found: Sequence[Run], options: argparse.Namespace) -> list[Run]:
    """Return the runs that `--where` chooses."""
    try:
        with given_by("--where", BadCondition):
            return store.select(found, filter.parse(options.where))
    except BadField as error:
        hint = "" if options.labels else " Those of a study's axes are known with --labels STUDY."
        raise ConfigError(f"--where: {error}{hint}") from error


def _grid(name: str) -> Grid:
    """Return the grid of a study, or of a file."""
    is_file = Path(name).suffix.lower() in (".yaml", ".yml", ".json")
    with given_by("--labels"):
        return read(user_path(name)) if is_file else study.find(name).grid


def _table_of(runs: Sequence[Run], options: argparse.Namespace) -> Table:
    if options.sql:
        with given_by("--sql:", BadQuery, NoDuckDB):
            return duckdb_export.query(store.table(runs), options.sql)
    if not options.by:
        return store.table(runs)
    by = [name.strip() for name in options.by.split(",") if name.strip()]
    if not by:
        raise ConfigError("--by: names no column.")
    unfinished = sum(not run.finished for run in runs)
    if unfinished:
        console.warn(f"{unfinished} of {len(runs)} runs are not finished and are left out")
    with given_by("--by:", BadField):
        pooled, table = store.pooled(runs, by), store.grouped(runs, by)
    if again := store.repeated(runs):
        console.warn(
            f"{counted(again, 'experiment', ' ')} came to other results in another run, of another "
            "version or machine; the mean of these counts once"
        )
    if pooled:
        console.warn(f"rows pool runs that differ in {', '.join(pooled)}; --by can tell them apart")
    return table


def _shown(runs: Sequence[Run], options: argparse.Namespace) -> Sequence[Run]:
    """Return the runs whose means are in the table, as far as that is known."""
    if options.sql:
        return ()
    return [run for run in runs if run.finished] if options.by else runs


def _format_of(path: Path | None) -> str:
    if path is None or not path.suffix:
        return "table"
    if (suffix := path.suffix.lower()) not in _SUFFIXES:
        allowed = ", ".join(_SUFFIXES)
        raise ConfigError(
            f"--out {path}: its name says no format; allowed are {allowed}, or give --format."
        )
    return _SUFFIXES[suffix]


def _write(table: Table, kind: str, path: Path | None) -> None:
    if kind == "parquet":
        assert path is not None
        with given_by("--out", CannotWrite), given_by("--format parquet:", NoDuckDB):
            duckdb_export.write_parquet(table, path)
    elif kind != "table":
        text = _WRITERS[kind](table)
        if path is None:
            print(text, end="")
        else:
            _save(text, path)
    elif path is not None:
        _save(as_text(table), path)
    else:
        show(table)
    if path is not None:
        console.say(f"Written to {path}")


def _save(text: str, path: Path) -> None:
    with given_by("--out"), writing(path):
        write_atomically(path, text.encode(errors="backslashreplace"))
