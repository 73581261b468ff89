"""Runs with the labels of a grid's axes, which no run folder holds: they are found by identity."""

from collections.abc import Sequence
from dataclasses import replace

from entity.config.schema import ConfigError
from entity.results.store import Run
from entity.sweep.cells import labels_by_identity
from entity.sweep.grid import SEED, Grid

_METHODS = ("defense", "attack")
"""Columns of every table whose place an axis of their name takes."""


def labelled_runs(runs: Sequence[Run], grid: Grid) -> list[Run]:
    """Return the runs, those of the grid with the labels of its axes as fields.

    Where several labels come to one experiment it has the first. An axis goes before a field of
    its name.

    Parameters
    ----------
    runs
        As `store.collect` returns them.
    grid
        The checked grid.

    Raises
    ------
    ConfigError
        If a cell of the grid is no possible experiment, also for want of data, or none of the runs
        is of the grid.
    """
    known = labels_by_identity(grid)
    if runs and not any(str(run.facts["hash"]) in known for run in runs):
        raise ConfigError("none of these runs is one of it, as it is now.")
    return [
        _labelled(run, known[identity][0]) if (identity := str(run.facts["hash"])) in known else run
        for run in runs
    ]


def _labelled(run: Run, labels: dict[str, str]) -> Run:
    methods = {name: label for name, label in labels.items() if name in _METHODS}
    others = {
        name: label for name, label in labels.items() if name != SEED and name not in run.facts
    }
    return replace(run, facts={**run.facts, **methods}, fields={**run.fields, **others})
