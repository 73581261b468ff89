"""Runs of methods that `drop reproduce rivals --add` has put beside those of the study."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from entity.results import store
from entity.sweep import study
from entity.sweep.additions import with_added
from entity.sweep.cells import expand
from entity.sweep.grid import Grid, with_plugins
from rivals.lines import NAME, Line, line_of, planned, planned_of


def grid_with(plugins: Sequence[str], words: Sequence[str]) -> Grid:
    """Return the grid of the study with added methods.

    Parameters
    ----------
    plugins, words
        As `drop reproduce` takes them after --plugins and --add.

    Raises
    ------
    ConfigError
        As `with_added`.
    """
    chosen = study.find(NAME)
    return with_added(replace(chosen, grid=with_plugins(chosen.grid, plugins)), words).grid


def own_lines(folder: Path, grid: Grid) -> list[Line]:
    """Return the lines of finished runs in and below a folder that the study itself has not.

    Parameters
    ----------
    folder
        Of the runs.
    grid
        As `grid_with` returns it.
    """
    shipped = {*planned()}
    cells = [cell for cell in grid.assignments() if planned_of(cell) not in shipped]
    with tempfile.TemporaryDirectory() as nothing:
        known = {cell.identity: cell for cell in expand(grid, Path(nothing) / "none", cells)}
    runs = {str(run.facts["hash"]): run for run in store.collect([folder]) if run.finished}
    return [
        line_of(planned_of(cell.labels), identity, runs[identity])
        for identity, cell in known.items()
        if identity in runs
    ]
