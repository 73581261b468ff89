"""What a sweep came to: its cells as a table, a row for each value of its axes, over its seeds."""

from collections.abc import Sequence

from entity.results.tables import Column, Spread, Table
from entity.sweep.cells import Cell, finite_facts
from entity.sweep.grid import Grid

MEASURED = (
    Column("mta", "%", spread=True, title="MTA"),
    Column("asr", "%", spread=True, title="ASR"),
    Column("worst_asr", "%", title="worst ASR"),
    Column("tpr", "%", spread=True, title="TPR"),
    Column("fpr", "%", spread=True, title="FPR"),
    Column("seconds", "s", spread=True),
)
"""As in `results.store.MEASURED`; the worst ASR is the highest of all seeds, others are means."""


def sweep_table(grid: Grid, cells: Sequence[Cell]) -> Table:
    """Return the results of finished cells, mean and standard deviation over seeds.

    Parameters
    ----------
    grid
        The grid; its axes of more than one value, the seed aside, are the first columns.
    cells
        Its cells as they are now. Those that are not finished count in no mean, but have a row.
    """
    axes = [axis.name for axis in grid.varied]
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        rows.setdefault(tuple(cell.labels[name] for name in axes), []).append(cell)
    return Table(
        (*map(Column, axes), Column("n"), *MEASURED),
        tuple(
            (
                *labels,
                sum(cell.state == "finished" for cell in row),
                *(
                    Spread.of(finite_facts(row, column.name))
                    if column.spread
                    else max(finite_facts(row, column.name), default=None)
                    for column in MEASURED
                ),
            )
            for labels, row in rows.items()
        ),
    )
