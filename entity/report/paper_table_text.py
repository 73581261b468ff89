r"""The table of a paper as Markdown, as LaTeX with booktabs, and as one line a number in CSV."""

from entity.report.paper_table import TITLES, Cell, PaperTable
from entity.results.formatting import NONE
from entity.results.tables import (
    Column,
    Table,
    escape_latex,
    escape_markdown,
    latex_lines,
    latex_row,
    markdown_lines,
    to_csv,
)

DAGGER, DOUBLE_DAGGER = "\N{DAGGER}", "\N{DOUBLE DAGGER}"
PM = "\N{PLUS-MINUS SIGN}"


def markdown(table: PaperTable) -> str:
    """Return a Markdown table with its note below."""
    heads = [axis.title for axis in table.layout.rows]
    tops = [
        ", ".join([*map(table.titled, column.labels(table.layout)), f"{TITLES[column.metric]} %"])
        for column in table.columns
    ]
    rows = [
        [*map(escape_markdown, map(table.titled, row)), *map(_for_markdown, cells)]
        for row, cells in zip(table.rows, table.cells, strict=True)
    ]
    right = [False] * len(heads) + [True] * len(tops)
    body = markdown_lines(list(map(escape_markdown, [*heads, *tops])), rows, right) if rows else ""
    return f"{body}\n{escape_markdown(table.note())}\n".lstrip("\n")


def _for_markdown(cell: Cell | None) -> str:
    if cell is None:
        return NONE
    mean, sd = cell.numbers
    text = f"**{mean}**" if cell.best else mean
    sign = DAGGER if cell.marked else DOUBLE_DAGGER if cell.alike else ""
    return text + (f" {PM} {sd}" if sd else "") + (f" {sign}" if sign else "")


def latex(table: PaperTable, label: str) -> str:
    r"""Return a `table` environment; the paper has \usepackage{booktabs}."""
    side = len(table.layout.rows)
    widest = [
        max((len(cell.numbers[1]) for row in table.cells if (cell := row[place])), default=0)
        for place in range(len(table.columns))
    ]
    rows = [
        [
            *map(escape_latex, map(table.titled, row)),
            *(_for_latex(cell, width) for cell, width in zip(cells, widest, strict=True)),
        ]
        for row, cells in zip(table.rows, table.cells, strict=True)
    ]
    heads = [escape_latex(axis.title) for axis in table.layout.rows]
    metrics = [rf"{TITLES[column.metric]} (\%)" for column in table.columns]
    head = [*_spanning(table, side), latex_row([*heads, *metrics])]
    begin, *lines, end = latex_lines(head, rows, [False] * side + [True] * len(table.columns))
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}[t]",
            r"  \centering",
            rf"  \caption{{{escape_latex(table.note())}}}",
            rf"  \label{{tab:{label}}}",
            f"  {begin}",
            *(f"    {line}" for line in lines),
            f"  {end}",
            r"\end{table}",
            "",
        ]
    )


def _spanning(table: PaperTable, side: int) -> list[str]:
    """Return a line for each field across the top, equal neighbours under one heading."""
    lines: list[str] = []
    for spans in table.spans():
        cells, rules, place = [""] * side, list[str](), side + 1
        for words, width in spans:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(table.titled(words))}}}")
            rules.append(rf"\cmidrule(lr){{{place}-{place + width - 1}}}")
            place += width
        lines += [" & ".join(cells).lstrip() + r" \\", " ".join(rules)]
    return lines


def _for_latex(cell: Cell | None, width: int) -> str:
    """Write a cell whose digits stand below those of its column; a dagger takes no room."""
    if cell is None:
        return "--"
    mean, sd = cell.numbers
    text = rf"\textbf{{{mean}}}" if cell.best else mean
    if sd:
        padding = rf"\phantom{{{'0' * (width - len(sd))}}}" if len(sd) < width else ""
        text += rf" $\pm$ {padding}{sd}"
    sign = r"\dagger" if cell.marked else r"\ddagger" if cell.alike else ""
    return text + (rf"\rlap{{$^{{{sign}}}$}}" if sign else "")


def csv(table: PaperTable) -> str:
    """Return one line a cell, nothing rounded, for programs."""
    names = [axis.path for axis in (*table.layout.rows, *table.layout.columns)]
    columns = [*names, "metric", "mean", "sd", "n", "seeds", "best", "p_holm", "differs"]
    rows = [
        (
            *row,
            *column.values,
            column.metric,
            cell.spread.mean,
            cell.spread.sd,
            cell.spread.n,
            " ".join(sorted(cell.seeds)),
            cell.best,
            cell.p,
            cell.marked,
        )
        for row, cells in zip(table.rows, table.cells, strict=True)
        for column, cell in zip(table.columns, cells, strict=True)
        if cell
    ]
    return to_csv(Table(tuple(map(Column, columns)), tuple(rows)))
