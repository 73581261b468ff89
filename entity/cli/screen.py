"""A table of results on standard output: fitted to a terminal, whole in a file or pipe."""

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as Screen

from entity.cli import console
from entity.results.tables import Table

_FOR_PROGRAMS = ("hash", "path")
_OPTIONAL = (
    *("name", "asr_max", "victim_accuracy", "dpr_of_all"),
    *("floor", "seconds", "fpr", "tpr"),
)
"""Columns that are left out, in this order, where there is no room; the CSV has them."""
_KEPT = ("mta", "asr", "state")
"""Columns that are shown on any terminal."""
_LEAST = 10
"""Letters of a text that are in one line at least."""


def show(table: Table, optional: Sequence[str] = _OPTIONAL) -> None:
    """Print a table, and say which columns a terminal has no room for.

    Parameters
    ----------
    table
        The table.
    optional
        Names of columns that are left out first, in this order, where there is no room.
    """
    if not console.out.is_terminal:
        print(as_text(table), end="")
        return
    kept = [*optional, *(each.name for each in reversed(table.columns))]
    order = [name for name in dict.fromkeys(kept) if name not in _KEPT]
    shown = table.without(_FOR_PROGRAMS)
    texts = {
        column.name: _LEAST
        for place, column in enumerate(shown.columns)
        if not _is_of_figures(shown, place) and column.name not in _KEPT
    }
    widths = fitted(shown, console.out.width, order, texts)
    console.out.print(_screen(shown, widths))
    missing = [c.title or c.name for i, c in enumerate(shown.columns) if i not in widths]
    if missing:
        console.note(
            f"Left out, as there is no room: {', '.join(missing)}. A wider terminal shows them, "
            "and so does drop results --format csv."
        )


def fitted(
    table: Table, room: int, optional: Sequence[str], least: Mapping[str, int]
) -> dict[int, int]:
    """Return the places of the columns that there is room for, and their widths.

    Headings are folded at their spaces, and texts where there is no other way; figures are not.

    Parameters
    ----------
    table
        The table.
    room
        Letters of a line; there is one space between two columns.
    optional
        Names of columns that are left out, in this order, until the others fit.
    least
        Letters that a column may be folded to, by its name; the others are never folded.
    """
    widths = table.widths
    fewest = {
        place: min(least.get(column.name, width), width)
        for place, (column, width) in enumerate(zip(table.columns, widths, strict=True))
    }

    def spare() -> int:
        return room + 1 - sum(width + 1 for width in fewest.values())

    for name in optional:
        if spare() >= 0:
            break
        fewest = {i: w for i, w in fewest.items() if table.columns[i].name != name}
    for place in fewest:
        fewest[place] += max(0, min(spare(), widths[place] - fewest[place]))
    return fewest


def _is_of_figures(table: Table, place: int) -> bool:
    """Say whether a column holds figures, as some of a query do without being known to."""
    found = {type(row[place]) for row in table.rows} - {type(None)}
    return table.columns[place].right or (bool(found) and found <= {int, float})


def _screen(table: Table, widths: Mapping[int, int]) -> Screen:
    made = Screen(box=SIMPLE_HEAD, show_edge=False, padding=0)
    for place, width in widths.items():
        column = table.columns[place]
        justify = "right" if _is_of_figures(table, place) else "left"
        made.add_column(column.heading, justify=justify, overflow="fold", width=width)
    for line in table.texts():
        made.add_row(*(line[place] for place in widths))
    return made


def as_text(table: Table) -> str:
    """Return a table in columns, however wide."""
    lines = [table.headings, *table.texts()]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)
