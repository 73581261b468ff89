"""Which fields of the configuration make the rows and the columns of a paper's table."""

from collections.abc import Sequence
from dataclasses import dataclass

from entity.config.schema import ConfigError
from entity.report.axes import DEFENSE, Axis, differing, named
from entity.report.entries import Entry
from entity.report.runs import RunRecord
from entity.results.filter import BadField


class BadTable(ConfigError):
    """A table that cannot be made; the sentence begins with the argument that is the cause."""


@dataclass(frozen=True)
class Layout:
    """Fields down the side and across the top of a table."""

    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]


def name_of(row: Sequence[str], layout: Layout) -> str:
    """Write a row's values in one: `drop, K 5`.

    Examples
    --------
    >>> name_of(("drop", "5"), Layout((Axis("defense", "defense"), Axis("server.K", "K")), ()))
    'drop, K 5'
    """
    return ", ".join(axis.label(value) for axis, value in zip(layout.rows, row, strict=True))


def lay_out(
    entries: Sequence[Entry], rows: Sequence[str] = (), columns: Sequence[str] = ()
) -> Layout:
    """Choose the fields of a table.

    Parameters
    ----------
    entries
        The runs; unfinished ones do not count.
    rows, columns
        Names of fields down the side and across the top. If only one side is named, the other
        gets all other fields in which the runs differ. Without any names, the fields of the
        defense are down the side and the others across the top.

    Raises
    ------
    BadTable
        For a name that is no field, a field on both sides, and where runs of one cell would differ
        by more than their seed.
    """
    runs = [entry.run for entry in entries if entry.run.complete]
    if not runs:
        return Layout((Axis(DEFENSE, DEFENSE),), ())
    down, across = _named("rows", rows, runs), _named("columns", columns, runs)
    both = [axis.path for axis in down if axis in across]
    if both:
        raise BadTable(f"columns: {both[0]} is among the rows already.")
    needed = differing(runs)
    free = [axis for axis in needed if axis not in (*down, *across)]
    if not down and not across:
        down = [axis for axis in free if axis.of_the_server]
        across = [axis for axis in free if not axis.of_the_server]
        if not down:
            down, across = across[:1] or [Axis(DEFENSE, DEFENSE)], across[1:]
    elif not across:
        across = _needed(runs, down, free)
    elif not down:
        down = _needed(runs, across, free) or [Axis(DEFENSE, DEFENSE)]
    missing = _needed(runs, [*down, *across], free)
    if missing:
        raise BadTable(
            f"rows: runs of one cell differ in {missing[0].path}, too; name it here or among the "
            "columns, or report runs of one of its values."
        )
    return Layout(tuple(down), tuple(across))


def _named(argument: str, names: Sequence[str], runs: Sequence[RunRecord]) -> list[Axis]:
    try:
        return named(names, runs)
    except BadField as error:
        raise BadTable(f"{argument}: {error}") from error


def _needed(runs: Sequence[RunRecord], chosen: Sequence[Axis], free: Sequence[Axis]) -> list[Axis]:
    """Return those of the free fields that still tell runs apart beside the chosen ones."""
    kept = list(chosen)
    found: list[Axis] = []
    for axis in free:
        keys = {tuple(each.written(run) for each in kept) for run in runs}
        if len({tuple(each.written(run) for each in (*kept, axis)) for run in runs}) > len(keys):
            found.append(axis)
            kept.append(axis)
    return found
