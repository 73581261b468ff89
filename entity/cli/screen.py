"""A table of results on standard output: fitted to a terminal, whole in a file or pipe."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table as Screen

from entity.cli import console
from entity.results.tables import Table

FOR_PROGRAMS = ("hash", "path")
FOR_WIDE = ("name", "asr_max", "victim_accuracy", "dpr_of_all")
"""Columns that 80 letters have no room for."""
WIDE = 110
"""Letters of a terminal that has room for them."""


def show(table: Table, for_wide: Sequence[str] = FOR_WIDE) -> None:
    """Print a table.

    Parameters
    ----------
    table
        The table.
    for_wide
        Names of columns that a narrow terminal has no room for.
    """
    if console.out.is_terminal:
        console.out.print(screen(table, for_wide))
    else:
        print(as_text(table), end="")


def screen(table: Table, for_wide: Sequence[str] = FOR_WIDE) -> Screen:
    """Return what fits a terminal: figures are never folded, and some texts are left out."""
    made = Screen(box=SIMPLE_HEAD, pad_edge=False)
    left_out = FOR_PROGRAMS if console.out.width >= WIDE else (*for_wide, *FOR_PROGRAMS)
    shown = [place for place, each in enumerate(table.columns) if each.name not in left_out]
    texts = table.texts()
    for column, cells in ((table.columns[i], [line[i] for line in texts]) for i in shown):
        widest = max(map(len, [*cells, *column.heading.split()]))
        made.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="fold",
            min_width=widest if column.right else min(10, widest),
        )
    for line in texts:
        made.add_row(*(line[place] for place in shown))
    return made


def as_text(table: Table) -> str:
    """Return a table in columns, however wide."""
    lines = [table.headings, *table.texts()]
    widths = [max(map(len, cells)) for cells in zip(*lines, strict=True)]
    padded = ("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)
