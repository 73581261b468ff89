"""`entity.sweep`: every experiment of a grid, side by side, and their results as one table.

entity.sweep("mnist5k/drop", defense=["drop", "flame"], seed=range(3))
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from entity.api import frames, html
from entity.api.runs import RUNS, Runs, as_html
from entity.api.sweep_progress import SweepDisplay
from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError, show
from entity.engine.main_module import refuse_second_start
from entity.record.atomic import writing
from entity.results.formatting import counted
from entity.results.tables import Table
from entity.setup import resolve
from entity.sweep import data
from entity.sweep.cells import Cell, as_they_are_now
from entity.sweep.grid import CONFIG, Grid, with_plugins
from entity.sweep.grid_file import of_axes, read, with_axes
from entity.sweep.plan import (
    SweepOptions,
    choose_cells,
    finished_runs,
    given_up,
    open_place,
    remaining,
)
from entity.sweep.runner import Failure, run_cells
from entity.sweep.table import sweep_table
from entity.trackers import require

if TYPE_CHECKING:
    from pandas import DataFrame

Base = ExperimentConfig | Mapping[str, Any] | str | Path


class Sweep(Runs):
    """The runs of a grid; in a notebook, a table of its axes.

    Parameters
    ----------
    grid
        The grid.
    cells
        Its chosen cells, as they are now.
    folder
        Folder of their run directories.
    failures
        Cells that could not be finished, each with its reason.
    """

    def __init__(
        self, grid: Grid, cells: Sequence[Cell], folder: Path, failures: Sequence[Failure]
    ) -> None:
        super().__init__([cell.done for cell in cells if cell.done], str(folder))
        self.grid, self.cells, self.folder = grid, list(cells), folder
        self.failures = list(failures)

    def summary(self) -> Table:
        """Return a row for each value of the axes, mean and standard deviation over seeds."""
        return sweep_table(self.grid, self.cells)

    def means(self, *by: str) -> "DataFrame":
        """Return the same as a DataFrame; see `Runs.means` for `by`.

        Parameters
        ----------
        by
            Names of columns; none for the axes of the grid.

        Raises
        ------
        ConfigError
            For a name that no run has, and without pandas.
        """
        return super().means(*by) if by else frames.of_table(self.summary())

    def __repr__(self) -> str:
        done = sum(cell.state == "finished" for cell in self.cells)
        left = f", {len(self.failures)} failed" if self.failures else ""
        return f"{done} of {counted(len(self.cells), 'run', ' ')} finished in {self.folder}{left}"

    def _repr_html_(self) -> str:
        failed = "".join(
            f"<p>failed: {html.escape(f'{each.cell.name}: {each.reason}')}</p>"
            for each in self.failures
        )
        return as_html(self.summary()) + failed + f"<p>{html.escape(repr(self))}</p>"


def sweep(
    config: Base | Sequence[str | Path] | None = None,
    folder: Path | str | None = None,
    *,
    grid: Path | str | None = None,
    where: str | Sequence[str] = (),
    jobs: int | None = None,
    ray: str | None = None,
    retry: bool = True,
    progress: bool = True,
    plugins: str | Path | Sequence[str | Path] = (),
    **axes: Any,
) -> Sweep:
    """Run every experiment of a grid that is not finished yet, each in a process of one thread.

    A run is known by the hash of its configuration: the same call runs what is missing by then,
    and goes on with what was interrupted.

    Parameters
    ----------
    config
        As `entity.run` takes it, or several names, an axis. None for a grid file.
    folder
        Folder of the run directories; by default one in `runs` that is called as the grid.
    grid
        A grid file, to which the axes are added.
    where
        Conditions on cells, such as `defense=drop`, all of which must hold.
    jobs
        Runs side by side; None for one on each core.
    ray
        Cluster of Ray to run on: `auto` or HOST:PORT.
    retry
        Try failed runs once more.
    progress
        Show a bar in a terminal or notebook, and a line for each finished run.
    plugins
        Python files, folders and modules with methods and data of your own, for all cells.
    axes
        Values by field, named as on the command line: a list or a range, a single value, or a
        table of named bundles such as `attack={"none": {"client.attack": None}, "badnets": {}}`.

    Raises
    ------
    ConfigError
        Naming the first cell that is no possible experiment, before anything runs.
    """
    refuse_second_start()
    whole, name = _grid(config, grid, axes)
    own = [plugins] if isinstance(plugins, str | os.PathLike) else plugins
    whole = with_plugins(whole, own)
    place = RUNS / name if folder is None else user_path(folder)
    words = (where,) if isinstance(where, str) else tuple(where)
    options = SweepOptions(place, words, _jobs(jobs), ray, retry)
    cells = choose_cells(whole, options)
    console = Console(stderr=True, emoji=False, markup=False)
    failures = run_grid(cells, options, console, quiet=not progress)
    return Sweep(whole, as_they_are_now(whole, place, cells), place, failures)


def run_grid(
    cells: Sequence[Cell],
    options: SweepOptions,
    console: Console,
    *,
    quiet: bool,
    ray_option: str = "ray",
) -> list[Failure]:
    """Run the cells that remain, and return those that could not be finished.

    Parameters
    ----------
    cells
        The chosen cells.
    options
        How they are run.
    console
        Where to show it.
    quiet
        Show nothing.
    ray_option
        What chose the cluster, for refusals.

    Raises
    ------
    ConfigError
        If the folder cannot be written, data or a tracker's package is missing, or there is no
        cluster.
    """
    for cell in cells:
        require(cell.config.settings.trackers, cell.folder)
    if not options.ray:  # whose machines have folders of their own
        data.refuse_changed(cells)
        data.provide(remaining(cells, options))
    with writing(options.folder):
        options.folder.mkdir(parents=True, exist_ok=True)
    waiting = remaining(cells, options)
    failures: list[Failure] = []
    if waiting:
        finished = sum(cell.state == "finished" for cell in cells)
        place, known = open_place(options, ray_option), finished_runs(options.folder)
        total = finished + len(waiting)
        with SweepDisplay(console, total, finished, place.jobs, known, quiet=quiet) as display:
            failures = run_cells(waiting, place, display, retry=options.retry)
    return [*failures, *given_up(cells, options)]


def _grid(config: object, file: Path | str | None, axes: Mapping[str, Any]) -> tuple[Grid, str]:
    """Return the grid that is meant, and its name."""
    if file is not None:
        if config is not None:
            raise ConfigError(f"config = {show(config)}: a grid file has a base; leave one out.")
        path = user_path(file)
        return with_axes(read(path), axes), path.stem
    if config is None:
        raise ConfigError("config: is missing; give one, or a grid file as grid.")
    if isinstance(config, ExperimentConfig | Mapping):
        tables = resolve.to_json(config) if isinstance(config, ExperimentConfig) else config
        return of_axes(tables, axes, "sweep"), sweep_name([str(tables.get("name") or "tables")])
    several = [config] if isinstance(config, str | os.PathLike) else config
    if not isinstance(several, Iterable) or isinstance(several, bytes):
        raise ConfigError(
            f"config = {show(config)}: allowed is a file, the name of a shipped configuration, "
            "several of them, tables of fields, or an experiment."
        )
    names = [str(each) for each in several]
    if CONFIG in axes:
        raise ConfigError(f"{CONFIG}: comes twice.")
    return of_axes(names, axes, "sweep"), sweep_name(names)


def sweep_name(names: Sequence[str]) -> str:
    """Return the name of a sweep without a file: of its folder in `runs`.

    Examples
    --------
    >>> sweep_name(["mnist5k/drop"]), sweep_name(["mnist5k/drop", "mine.json"])
    ('sweep-mnist5k-drop', 'sweep-mnist5k-drop-mine')
    """
    paths = [Path(name) for name in names]
    parts = ["-".join([*path.parts[-2:-1], path.stem]).strip("-/.") for path in paths]
    return "-".join(["sweep", *filter(None, parts)])[:100]


def _jobs(jobs: object) -> int | None:
    if jobs is None or (isinstance(jobs, int) and not isinstance(jobs, bool) and 1 <= jobs <= 1024):
        return jobs
    raise ConfigError(f"jobs = {show(jobs)}: allowed is a whole number from 1 to 1024, or None.")


__all__ = ["Sweep", "run_grid", "sweep", "sweep_name"]
