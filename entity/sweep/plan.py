"""The plan of a sweep: the chosen cells, those that remain to be run, and where they run."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from entity.config.schema import suggest
from entity.engine import cores
from entity.record.directory import refuse_in_a_run
from entity.results import filter, store
from entity.results.filter import BadCondition, BadField, Condition
from entity.results.store import Run
from entity.sweep.cells import Cell, expand
from entity.sweep.grid import Grid
from entity.sweep.on_ray import Cluster
from entity.sweep.place import Place
from entity.sweep.process import ThisMachine
from entity.sweep.runner import Failure, reason

RUNS = Path("runs")
"""Where runs are by default, and where finished ones are looked for to estimate time."""


@dataclass(frozen=True)
class SweepOptions:
    """How a grid is run."""

    folder: Path
    """Its run directories are in here."""
    where: tuple[str, ...] = ()
    """Conditions on cells, all of which must hold; see `entity.results.filter`."""
    jobs: int | None = None
    """Runs side by side; None for one on each core, of this machine or of the cluster."""
    ray: str | None = None
    """Cluster of Ray to run on: `auto` or HOST:PORT; None for this machine."""
    retry: bool = True
    """Try failed runs once more."""


class NoCellChosen(BadCondition):
    """The conditions hold for no cell of the grid."""


_SHOWN = 12
"""Values of an axis that a message names, at most."""


def choose_cells(grid: Grid, options: SweepOptions) -> list[Cell]:
    """Return the cells of a grid for which the conditions hold.

    Raises
    ------
    NoCellChosen
        If they hold for none.
    BadCondition, BadField
        If a condition cannot be read, or names a value that an axis does not have.
    ConfigError
        If a cell is no possible experiment, or the folder is a run's.
    """
    refuse_in_a_run(options.folder)
    if not options.where:
        return expand(grid, options.folder)
    conditions = filter.parse(options.where)
    assignments = list(grid.assignments())
    axes = {axis.name: [value.label for value in axis.values] for axis in grid.axes}
    for one in conditions.conditions:
        _refuse_no_value(one, axes.get(one.name, ()))
    if all(one.name in axes for one in conditions.conditions):
        # Settled without the other cells, whose data need not be here then.
        holds = conditions.select(assignments)
        _refuse_none(holds, options.where)
        assignments = [labels for labels, chosen in zip(assignments, holds, strict=True) if chosen]
    cells = expand(grid, options.folder, assignments)
    try:
        meant = iter(conditions.select([row for cell in cells for row in cell.rows]))
    except BadField as error:
        said = f" The axes are {', '.join(axes)}." if axes else ""
        raise BadField(f"{error}{said}") from error
    labels = [[each for each in cell.every_labels if next(meant)] for cell in cells]
    _refuse_none([bool(each) for each in labels], options.where)
    return [
        replace(cell, labels=each[0], others=tuple(each[1:]))
        for cell, each in zip(cells, labels, strict=True)
        if each
    ]


def _refuse_no_value(one: Condition, labels: Sequence[str]) -> None:
    """Refuse a value that is none of an axis: a typo would choose less than was asked for."""
    if one.operator not in ("=", "!="):
        return
    for text in one.values if labels else ():
        if not any(Condition(one.name, "=", (text,)).holds(label) for label in labels):
            more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
            hint = suggest(text, labels) or f" It has {', '.join(labels[:_SHOWN])}{more}."
            raise BadCondition(
                f"{one.name}{one.operator}{text}: is no value of the axis {one.name}.{hint}"
            )


def _refuse_none(holds: Sequence[bool], where: Sequence[str]) -> None:
    if not any(holds):
        raise NoCellChosen(f"{' '.join(where)}: holds for none of the {len(holds)} runs.")


def remaining(cells: Sequence[Cell], options: SweepOptions) -> list[Cell]:
    """Return the cells that are to be run: those not finished, failed ones only for a retry."""
    skipped = ("finished",) if options.retry else ("finished", "failed")
    return [cell for cell in cells if cell.state not in skipped]


def given_up(cells: Sequence[Cell], options: SweepOptions) -> list[Failure]:
    """Return the cells that failed before and are not tried again."""
    if options.retry:
        return []
    return [Failure(cell, reason(cell)) for cell in cells if cell.state == "failed"]


def open_place(options: SweepOptions, option: str = "ray") -> Place:
    """Return where the cells run; an error names `option` as what chose the cluster.

    Raises
    ------
    ConfigError
        If the cluster cannot be joined.
    """
    if options.ray:
        return Cluster(options.ray, options.jobs, option)
    return ThisMachine(options.jobs or side_by_side())


def side_by_side() -> int:
    """Return how many runs a machine takes: one a core, but one if there is a card to share."""
    return 1 if torch.cuda.is_available() else cores()


def finished_runs(folder: Path) -> list[Run]:
    """Return the finished runs of a folder and of `RUNS`, by which time can be estimated."""
    folders = [each for each in (folder, RUNS) if each.is_dir()]
    return [run for run in store.collect(folders) if run.finished]
