"""Cells that count for nobody: those in which the attack does not work where nobody defends.

Key `void` of a study: `label` of `axis` is the defense that is none, and `below` the worst ASR in
percent, of the rounds of acceptable MTA, from which on an attack counts as one. A cell is judged by
its twin: the one that differs from it by that axis alone, with the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from entity.sweep.cells import Cell, expand
from entity.sweep.grid import Grid

Key = tuple[tuple[str, str], ...]
"""Labels of a cell on all axes but that of the defense."""


@dataclass(frozen=True)
class Void:
    """When an attack counts as one."""

    axis: str
    label: str
    below: float
    """Worst ASR undefended, a share of one, below which it does not."""

    def others(self, labels: Mapping[str, str]) -> Key:
        """Return what a cell shares with the undefended one that it is judged by."""
        return tuple((name, label) for name, label in labels.items() if name != self.axis)


def twins(rule: Void | None, grid: Grid, folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells in which nobody defends that some cells are judged by.

    Parameters
    ----------
    rule
        When an attack counts as one; without it there are none.
    grid
        The whole grid, of which `cells` may be a few.
    folder
        The folder of the runs.
    cells
        The cells.
    """
    if rule is None:
        return []
    wanted = {tuple(sorted({**cell.labels, rule.axis: rule.label}.items())) for cell in cells}
    there = [labels for labels in grid.assignments() if tuple(sorted(labels.items())) in wanted]
    return expand(grid, folder, there)


def void_cells(
    rule: Void | None, cells: Sequence[Cell], undefended: Sequence[Cell] = ()
) -> set[str]:
    """Return the identities of the void cells.

    Nothing is known of a cell whose twin is not finished. A cell without attack is not void.

    Parameters
    ----------
    rule
        When an attack counts as one; without it no cell is void.
    cells
        The cells; twins may be among them.
    undefended
        Their other twins.
    """
    if rule is None:
        return set()
    fails = {
        rule.others(labels)
        for cell in (*cells, *undefended)
        if (worst := worst_asr(cell)) is not None and worst < rule.below
        for labels in cell.every_labels
        if labels[rule.axis] == rule.label
    }
    return {
        cell.identity
        for cell in cells
        if rule.others(cell.labels) in fails and cell.config.client.attacked_by != "none"
    }


def unknown_cells(
    rule: Void | None, cells: Sequence[Cell], undefended: Sequence[Cell] = ()
) -> set[str]:
    """Return the identities of attacked cells whose twin is there and not finished.

    Parameters
    ----------
    rule, cells, undefended
        As of `void_cells`.
    """
    if rule is None:
        return set()
    waiting = {
        rule.others(labels)
        for cell in (*cells, *undefended)
        if worst_asr(cell) is None
        for labels in cell.every_labels
        if labels[rule.axis] == rule.label
    }
    return {
        cell.identity
        for cell in cells
        if rule.others(cell.labels) in waiting
        and cell.labels[rule.axis] != rule.label
        and cell.config.client.attacked_by != "none"
    }


def worst_asr(cell: Cell) -> float | None:
    """Return the worst ASR of a cell that is finished."""
    worst = cell.done.facts["worst_asr"] if cell.done and cell.done.finished else None
    return worst if isinstance(worst, float) else None
