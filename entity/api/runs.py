"""`entity.results`: the runs of a folder, as DataFrames, as figures, and one by one."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, overload

from entity.api import frames, html, plots
from entity.api.run import Result, open_run
from entity.config.paths import user_path
from entity.config.schema import ConfigError, suggest
from entity.reading import parse_json
from entity.record.rounds import of_a_run, whole_lines
from entity.report.runs import read_runs
from entity.results import filter, store
from entity.results.formatting import counted
from entity.results.store import Run
from entity.results.tables import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

log = logging.getLogger("entity")

_SHOWN = ("name", "defense", "attack", "seed", "mta", "asr", "worst_asr", "tpr", "fpr", "state")
"""Columns of a notebook's table; `frame()` has them all."""
_MOST_ROWS = 60
RUNS = Path("runs")


class Runs(Sequence[Result]):
    """Runs of a folder, by path; each is read once it is asked for.

    `runs[0]` and `runs["its-name"]` are a `Result`; a slice is `Runs` again.

    Parameters
    ----------
    runs
        As `store.collect` returns them.
    title
        Where they are from.
    """

    def __init__(self, runs: Sequence[Run], title: str) -> None:
        self.runs, self.title = list(runs), title

    def __len__(self) -> int:
        return len(self.runs)

    def __iter__(self) -> Iterator[Result]:
        return (open_run(run.path) for run in self.runs)

    @overload
    def __getitem__(self, place: int | str) -> Result: ...

    @overload
    def __getitem__(self, place: slice) -> "Runs": ...

    def __getitem__(self, place: int | str | slice) -> "Result | Runs":
        if isinstance(place, slice):
            return Runs(self.runs[place], self.title)
        if isinstance(place, str):
            named = [run for run in self.runs if place in (run.facts["name"], run.path.name)]
            if len(named) != 1:
                known = [str(run.facts["name"]) for run in self.runs]
                hint = suggest(place, known) if not named else " Its folder's name tells it apart."
                raise ConfigError(f"{len(named)} runs of {self.title} are called {place}.{hint}")
            return open_run(named[0].path)
        return open_run(self.runs[place].path)

    def where(self, *conditions: str) -> "Runs":
        """Return the runs for which all conditions hold.

        Parameters
        ----------
        conditions
            Such as `defense=drop,median` or `DPR<0.3 or attack=none`, as `drop results --where`
            takes them.

        Raises
        ------
        ConfigError
            For what is no condition, and for a field of none of the runs.
        """
        return Runs(store.select(self.runs, filter.parse(conditions)), self.title)

    def frame(self, *, rounds: bool = False) -> "DataFrame":
        """Return a row for each run: its results, and the fields in which the runs differ.

        Parameters
        ----------
        rounds
            A row for each round of each run instead, with the run's name, defense, attack and seed.

        Raises
        ------
        ConfigError
            If pandas is not installed.
        """
        if not rounds:
            return frames.of_table(self.table())
        rows = [
            {**{name: run.facts[name] for name in ("name", "defense", "attack", "seed")}, **row}
            for run in self.runs
            for row in frames.rows(parse_json(line) for line in whole_lines(run.path, of_a_run))
        ]
        return frames.of_rows(rows)

    def means(self, *by: str) -> "DataFrame":
        """Return mean and standard deviation of finished runs that agree in some columns.

        What else than the seed differs within a row is pooled, and a warning names it.

        Parameters
        ----------
        by
            Names of columns, such as `defense`, `attack`, `DPR`.

        Raises
        ------
        ConfigError
            For a name that no run has, and without pandas.
        """
        if pooled := store.pooled(self.runs, by):
            log.warning("rows pool runs that differ in %s", ", ".join(pooled))
        if again := store.repeated(self.runs):
            log.warning("%d experiments have several runs with other results: their mean", again)
        return frames.of_table(store.grouped(self.runs, by))

    def table(self) -> Table:
        """Return the table of `drop results`."""
        return store.table(self.runs)

    def plot(self, *figures: str, titles: Mapping[str, str] | None = None) -> "dict[str, Axes]":
        """Draw figures of the report, and return their axes by name.

        Parameters
        ----------
        figures
            Some of `mta`, `asr`, `roc` and `heat`; none for all that there is data for.
        titles
            What methods are called, such as `{"drop": "DROP (ours)"}`; others as published.

        Raises
        ------
        ConfigError
            For another name, for one without data, and without matplotlib.
        """
        return plots.plot(read_runs([run.path for run in self.runs]), figures, titles)

    def __repr__(self) -> str:
        done = sum(run.finished for run in self.runs)
        return f"{counted(len(self.runs), 'run', ' ')} in {self.title}, {done} finished"

    def _repr_html_(self) -> str:
        return as_html(self.table(), _SHOWN) + f"<p>{html.escape(repr(self))}</p>"


def as_html(table: Table, shown: Sequence[str] = ()) -> str:
    """Return a table for a notebook.

    Parameters
    ----------
    table
        The table.
    shown
        Names of its columns to show, besides those whose names are no measurements; none for all.
    """
    places = [
        place
        for place, column in enumerate(table.columns)
        if not shown or column.name in shown or column.name not in _LEFT_OUT
    ]
    rows = [[texts[place] for place in places] for texts in table.texts()[:_MOST_ROWS]]
    more = len(table.rows) - len(rows)
    left_out = f"<p>and {counted(more, 'row')} more</p>" if more else ""
    return html.table([table.headings[place] for place in places], rows) + left_out


_LEFT_OUT = {column.name for column in store.MEASURED} | {"hash", "path"}


def results(*folders: str | Path) -> Runs:
    """Return all runs in and below some folders.

    Parameters
    ----------
    folders
        Folders of run directories, or run directories; none for `runs`.

    Returns
    -------
    Runs
        With `frame()`, `means()`, `where()` and `plot()`.

    Raises
    ------
    ConfigError
        If one of them is no folder.

    Examples
    --------
    >>> import entity
    >>> entity.results("runs").frame()  # doctest: +SKIP
    """
    paths = [user_path(folder) for folder in folders] or [RUNS]
    return Runs(store.collect(paths), " ".join(map(str, paths)))
