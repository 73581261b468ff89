"""A table of results and the texts made of it: CSV for programs, Markdown and LaTeX for papers.

A text for people shows shares in percent and a mean over seeds as `mean ± sd`; one for programs
has every number as it was measured: mean, standard deviation and how many they are of, each in a
column of its own.
"""

import csv
import io
import json
import math
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal


@dataclass(frozen=True)
class Spread:
    """A mean over `n` runs and their standard deviation (n - 1), None for a single one."""

    mean: float
    sd: float | None
    n: int
    among: int = 0
    """How many runs there are; if some of them have no such number, people are told of how many
    the mean is."""

    @classmethod
    def of(cls, values: Sequence[float], among: int = 0) -> "Spread | None":
        """Sum up numbers, of `among` runs; None if there are none.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0, n=3, among=0)
        """
        if not values:
            return None
        spread = stdev(values) if len(values) > 1 else None
        return cls(fmean(values), spread, len(values), among)


@dataclass(frozen=True)
class Column:
    """A column's name and how people read its numbers."""

    name: str
    unit: Literal["", "%", "s"] = ""
    spread: bool = False
    """Cells are `Spread` or None."""
    title: str = ""
    """What people call it, where that is not the name."""

    @property
    def heading(self) -> str:
        """Return what stands above the column for people."""
        title = self.title or self.name
        return f"{title} %" if self.unit == "%" else title

    @property
    def right(self) -> bool:
        """Whether it holds numbers, which stand to the right."""
        return bool(self.unit) or self.spread


@dataclass(frozen=True)
class Table:
    """Rows of cells: text, numbers, booleans, lists, `Spread`, or None for nothing."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...] = ()

    @property
    def headings(self) -> list[str]:
        """Return what stands above the columns for people."""
        return [column.heading for column in self.columns]

    def texts(self) -> list[list[str]]:
        """Return the cells as people read them."""
        return [
            [_shown(column, cell) for column, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    @property
    def widths(self) -> list[int]:
        """Return the letters of each column, its heading folded at the spaces."""
        return [
            max(map(len, [*cells, *column.heading.split()]))
            for column, *cells in zip(self.columns, *self.texts(), strict=True)
        ]

    def fits(self, room: int) -> bool:
        """Whether a line of so many letters has room for all columns, a space between two."""
        return sum(width + 1 for width in self.widths) <= room + 1

    def without(self, names: Collection[str]) -> "Table":
        """Return the table without some columns, by their names."""
        kept = [place for place, column in enumerate(self.columns) if column.name not in names]
        rows = tuple(tuple(row[place] for place in kept) for row in self.rows)
        return Table(tuple(self.columns[place] for place in kept), rows)

    def plain(self) -> tuple[list[str], list[list[Any]]]:
        """Return names and cells for programs: spreads in three columns, lists as JSON."""
        names: list[str] = []
        for column in self.columns:
            ends = ("_mean", "_sd", "_n") if column.spread else ("",)
            names += [f"{column.name}{end}" for end in ends]
        return names, [
            [
                part
                for column, cell in zip(self.columns, row, strict=True)
                for part in _parts(column, cell)
            ]
            for row in self.rows
        ]


def to_csv(table: Table) -> str:
    """Return comma-separated values with a line of names; nothing is rounded.

    A text that begins as a formula does has an apostrophe before it, as spreadsheets want.
    """
    names, rows = table.plain()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([[_inert(_word(cell)) for cell in row] for row in (names, *rows)])
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """Put an apostrophe before a text that a spreadsheet would take for a formula."""
    if cell is None:
        return ""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def to_markdown(table: Table) -> str:
    """Return a Markdown table, numbers to the right."""
    headings, *rows = [
        list(map(escape_markdown, line)) for line in (table.headings, *table.texts())
    ]
    return markdown_lines(headings, rows, [column.right for column in table.columns])


def markdown_lines(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]
) -> str:
    """Return a Markdown table of cells that are Markdown already.

    Parameters
    ----------
    headings
        The first line.
    rows
        The other lines, each with as many cells.
    right
        Whether a column's cells stand to the right.
    """
    rules = ["---:" if to_the_right else "---" for to_the_right in right]
    return "".join(f"| {' | '.join(line)} |\n" for line in (headings, rules, *rows))


def to_latex(table: Table) -> str:
    r"""Return a `tabular` with booktabs rules; the paper has \usepackage{booktabs}."""
    lines = [table.headings, *table.texts()]
    headings, *rows = [list(map(escape_latex, line)) for line in lines]
    right = [column.right for column in table.columns]
    return "\n".join([*latex_lines([latex_row(headings)], rows, right), ""])


def latex_row(cells: Sequence[str]) -> str:
    """Return a line of a LaTeX table of cells that are LaTeX already.

    A bracket that begins a line would be read as what the rule above it is asked for.
    """
    line = " & ".join(cells) + r" \\"
    return f"{{[}}{line[1:]}" if line.startswith("[") else line


def latex_lines(
    head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[bool]
) -> list[str]:
    """Return the lines of a `tabular` with booktabs rules, of cells that are LaTeX already.

    Parameters
    ----------
    head
        Lines above the middle rule, such as those of `latex_row`.
    rows
        Cells of the lines below it.
    right
        Whether a column's cells stand to the right.
    """
    kinds = "".join("r" if to_the_right else "l" for to_the_right in right)
    body = [*head, r"\midrule", *map(latex_row, rows)]
    return [
        rf"\begin{{tabular}}{{{kinds}}}",
        *(r"\toprule", *body, r"\bottomrule"),
        r"\end{tabular}",
    ]


def _shown(column: Column, cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        mean = _number(column.unit, cell.mean)
        text = mean if cell.sd is None else f"{mean} ± {_number(column.unit, cell.sd)}"
        return f"{text} (n = {cell.n})" if cell.n < cell.among else text
    if isinstance(cell, int | float) and not isinstance(cell, bool) and column.unit:
        return _number(column.unit, cell)
    return f"{cell:.6g}" if isinstance(cell, float) else str(_word(cell))


def _number(unit: str, value: float) -> str:
    return f"{100 * value:.1f}" if unit == "%" else f"{value:{'.1f' if unit else '.4g'}}"


def _parts(column: Column, cell: Any) -> list[Any]:
    if column.spread:
        return [None, None, 0] if cell is None else [cell.mean, cell.sd, cell.n]
    if isinstance(cell, float) and not math.isfinite(cell):
        return [None]
    return [json.dumps(cell, default=str) if isinstance(cell, list | tuple | dict) else cell]


def _word(cell: Any) -> Any:
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return json.dumps(cell, default=str) if isinstance(cell, list | tuple | dict) else cell


def escape_markdown(cell: str) -> str:
    r"""Escape text for a cell of a Markdown table; a line break would end the row.

    Examples
    --------
    >>> print(escape_markdown("a|b"))
    a\|b
    """
    return re.sub(r"\s*[\r\n]+\s*", " ", re.sub(r"([\\|<*_`\[])", r"\\\1", cell))


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
}


def escape_latex(cell: str) -> str:
    r"""Escape text for LaTeX; a line break would end the row.

    Examples
    --------
    >>> print(escape_latex("trimmed_mean, 5 %"))
    trimmed\_mean, 5 \%
    """
    if cell == "-":
        return "--"
    return "".join(_LATEX.get(character, character) for character in " ".join(cell.split()))
