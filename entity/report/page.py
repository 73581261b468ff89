"""One HTML page from any number of runs, with everything it needs inside it."""

import base64
import gzip
import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from entity.record.atomic import write_atomically, writing
from entity.report.axes import Axis
from entity.report.entries import Entry, make_entries
from entity.report.page_figures import draw_figures
from entity.report.paper_table import TITLES, PaperTable, TableRequest
from entity.report.runs import read_runs
from entity.report.settings import compare
from entity.report.summary import overview
from entity.report.trigger_cards import draw_triggers
from entity.results import formatting

OPEN_MAPS = 4
OPEN_TREES = 4
"""Maps and trees that stand open at first; those of further runs open on a click."""


SIGNS = {
    "circle": "M9 5a4 4 0 1 0 8 0a4 4 0 1 0-8 0",
    "square": "M9.5 1.5h7v7h-7z",
    "triangle-up": "M13 .5l4.5 8h-9z",
    "triangle-down": "M13 9.5l4.5-8h-9z",
    "cross": "M11.5 .7h3v2.8h2.8v3h-2.8v2.8h-3v-2.8h-2.8v-3h2.8z",
    "x": "M10.5 .8L13 3.3l2.5-2.5 1.7 1.7L14.7 5l2.5 2.5-1.7 1.7L13 6.7l-2.5 2.5"
    "-1.7-1.7L11.3 5 8.8 2.5z",
    "pentagon": "M13 .6l4.4 3.3-1.7 5.2h-5.4L8.6 3.9z",
    "star": "M13 0l1.5 3.3 3.5.4-2.6 2.4.7 3.6L13 7.9 9.9 9.7l.7-3.6L8 3.7l3.5-.4z",
}
"""Paths of `looks.SYMBOLS` around (13, 5), for legends."""

TITLE = "Backdoor attacks and defenses, compared"


def write_page(
    run_dirs: Sequence[Path],
    out: Path,
    title: str = TITLE,
    asked: TableRequest | None = None,
    left_out: Callable[[str], None] | None = None,
    mta_at_least: float | None = None,
) -> Path:
    """Write a report of runs as one file that needs no network.

    Parameters
    ----------
    run_dirs
        Run directories; a run that did not end is shown as far as it went.
    out
        The HTML file to write; its directory is made if need be.
    title
        Heading of the page.
    asked
        Fields of the table over seeds.
    left_out
        Takes a sentence on each damaged run, which is left out; None writes it to the log.
    mta_at_least
        MTA, from 0 to 1, of the rounds whose worst ASR counts; None is a share of the run's last.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    BadTable
        For fields that make no table.
    CannotWrite
        If the file cannot be written.
    ConfigError
        For a directory that does not exist, or where no run can be read.
    """
    asked = asked or TableRequest()
    entries = make_entries(read_runs(run_dirs, left_out), asked.names, mta_at_least)
    page = render(entries, title, asked.table(entries))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(out, page.encode(errors="backslashreplace"))
    return out


def render(entries: Sequence[Entry], title: str, table: PaperTable) -> str:
    """Return the page as text.

    Parameters
    ----------
    entries
        The runs.
    title
        Heading of the page.
    table
        Their results over seeds.
    """
    figures = draw_figures(entries)
    specs = json.dumps(figures.specs(), separators=(",", ":"), allow_nan=False)
    return _template().render(
        title=title,
        entries=entries,
        overview=overview(entries),
        table=table,
        figures=figures,
        triggers=draw_triggers(entries),
        signs=SIGNS,
        open_maps=OPEN_MAPS,
        open_trees=OPEN_TREES,
        settings=compare(entries) if entries else None,
        style=_part("page.css"),
        script=_part("page.js"),
        data=_packed(specs),
        plotly=_packed_plotly() if figures.by_name else "",
    )


def _template() -> Template:
    """Load the page's template; all that is put into it is escaped unless it is `Markup`."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = cast("dict[str, object]", environment.filters)
    written = (formatting.percent, formatting.duration, formatting.memory, formatting.counted)
    filters |= {function.__name__: function for function in (*written, numeric)}
    filters["metric"] = TITLES.__getitem__
    return environment.from_string(_part("page.html"))


def numeric(axis: Axis, entries: Sequence[Entry]) -> bool:
    """Whether all values of a field are numbers, where there are any: they stand to the right."""
    found = [value for entry in entries if (value := axis.value(entry.run)) is not None]
    return not any(isinstance(each, bool) or not isinstance(each, int | float) for each in found)


def _part(name: str) -> Markup:
    """Read a file of this package that goes into the page as it is."""
    return Markup(files("entity.report").joinpath(name).read_text("utf-8"))


@cache
def _packed_plotly() -> str:
    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    """Compress text for `page.js` to unpack; base64 has no character that HTML would read."""
    return base64.b64encode(
        gzip.compress(text.encode("utf-8", "backslashreplace"), 9, mtime=0)
    ).decode("ascii")
