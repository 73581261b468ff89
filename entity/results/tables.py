"""A table of results and the texts made of it: CSV for programs, Markdown and LaTeX for papers.

A text for people shows shares in percent and a mean over seeds as `mean ± sd`; one for programs
has every number as it was measured, mean, standard deviation and all in columns of their own.
"""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any, Literal


@dataclass(frozen=True)
class Spread:
    """A mean over `n` runs and their standard deviation (n - 1), None for a single one."""

    mean: float
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread | None":
        """Sum up numbers; None if there are none.

        Examples
        --------
        >>> Spread.of([1.0, 2.0, 3.0])
        Spread(mean=2.0, sd=1.0, n=3)
        """
        if not values:
            return None
        return cls(fmean(values), stdev(values) if len(values) > 1 else None, len(values))


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

    def plain(self) -> tuple[list[str], list[list[Any]]]:
        """Return names and cells for programs: spreads in two columns, lists as JSON."""
        names: list[str] = []
        for column in self.columns:
            ends = ("_mean", "_sd") if column.spread else ("",)
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
    """Return comma-separated values with a line of names; nothing is rounded."""
    names, rows = table.plain()
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([["" if cell is None else _word(cell) for cell in row] for row in rows])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Return a Markdown table, numbers to the right."""
    rules = ["---:" if column.right else "---" for column in table.columns]
    lines = [table.headings, *table.texts()]
    body = [" | ".join(escape_markdown(cell) for cell in line) for line in lines]
    return "".join(f"| {line} |\n" for line in (body[0], " | ".join(rules), *body[1:]))


def to_latex(table: Table) -> str:
    r"""Return a `tabular` with booktabs rules; the paper has \usepackage{booktabs}."""
    kinds = "".join("r" if column.right else "l" for column in table.columns)
    texts = [table.headings, *table.texts()]
    lines = [" & ".join(map(escape_latex, line)) + r" \\" for line in texts]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{kinds}}}",
            r"\toprule",
            lines[0],
            r"\midrule",
            *lines[1:],
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def _shown(column: Column, cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, Spread):
        mean = _number(column.unit, cell.mean)
        return mean if cell.sd is None else f"{mean} ± {_number(column.unit, cell.sd)}"
    if isinstance(cell, int | float) and not isinstance(cell, bool) and column.unit:
        return _number(column.unit, cell)
    return f"{cell:.6g}" if isinstance(cell, float) else str(_word(cell))


def _number(unit: str, value: float) -> str:
    return f"{100 * value:.1f}" if unit == "%" else f"{value:{'.1f' if unit else '.4g'}}"


def _parts(column: Column, cell: Any) -> list[Any]:
    if column.spread:
        return [None, None] if cell is None else [cell.mean, cell.sd]
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
