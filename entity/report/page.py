"""One HTML page from any number of runs, with everything it needs inside it."""

import base64
import gzip
import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import cast

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from entity.record.atomic import writing
from entity.report import durability, roc, summary
from entity.report.axes import ATTACK, DEFENSE, Axis, differing
from entity.report.curves import draw_curves
from entity.report.dendrogram import draw_trees
from entity.report.entries import Entry, make_entries
from entity.report.generated_images import draw_sheets
from entity.report.heat import draw_heat, heats
from entity.report.paper_table import PaperTable, TableRequest, name_of
from entity.report.phases import draw_phases
from entity.report.plotly_figure import Figure
from entity.report.runs import read_run
from entity.report.settings import compare
from entity.report.verdict_map import draw_verdicts
from entity.results import formatting

DETAIL = 200_000
"""Verdicts on one page up to which hovering tells the reason; more would weigh too much."""

OPEN_MAPS = 4
OPEN_TREES = 4
"""Maps and trees that stand open at first; those of further runs open on a click."""


TITLE = "Backdoor attacks and defenses, compared"


def write_page(
    run_dirs: Sequence[Path], out: Path, title: str = TITLE, asked: TableRequest | None = None
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
        For a directory that holds no run.
    """
    entries = make_entries([read_run(Path(one)) for one in run_dirs])
    page = render(entries, title, (asked or TableRequest()).table(entries))
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, "utf-8")
    return out


def render(entries: Sequence[Entry], title: str, table: PaperTable) -> str:
    """Return the page of these runs, with their table over seeds, as text."""
    detail = sum(entry.outcome.judged for entry in entries) <= DETAIL
    curves, phases = draw_curves(entries), draw_phases(entries)
    maps = [(entry, draw_verdicts(entry, detail=detail)) for entry in entries]
    trees = draw_trees(entries)
    rocs, lives, panels = roc.rocs(entries), durability.durabilities(entries), heats(entries)
    sheets = draw_sheets([entry.run.images for entry in entries])
    figures: dict[str, Figure] = {
        name: figure
        for name, figure in (
            ("curves", curves),
            ("phases", phases),
            ("roc", roc.draw_rocs(rocs)),
            ("durability", durability.draw_durability(lives)),
        )
        if figure
    }
    figures |= {f"map-{entry.index}": verdicts.figure for entry, verdicts in maps if verdicts}
    figures |= {f"heat-{place}": draw_heat(heat) for place, heat in enumerate(panels)}
    figures |= {f"tree-{entry.index}": drawn[-1].figure for entry, drawn in trees}
    specs = {name: figure.spec() for name, figure in figures.items()}
    specs |= {
        f"tree-{entry.index}@{tree.round}": tree.figure.spec()
        for entry, drawn in trees
        for tree in drawn[:-1]
    }
    return _template().render(
        title=title,
        entries=entries,
        groups=list({entry.group.index: entry.group for entry in entries}.values()),
        facts=summary.facts(entries),
        verdict=summary.verdict(entries),
        attacks={entry.run.attack for entry in entries},
        axes=[
            axis
            for axis in differing([entry.run for entry in entries])
            if axis.path not in (DEFENSE, ATTACK)
        ],
        seeds={entry.run.setting("settings.seed") for entry in entries},
        table=table,
        name_of=name_of,
        rocs=roc.table(rocs),
        lives=durability.table(lives),
        heats=panels,
        figures=figures,
        maps=[(entry, verdicts) for entry, verdicts in maps if verdicts],
        open_maps=OPEN_MAPS,
        open_trees=OPEN_TREES,
        detail=detail,
        any_distilled=any(each.distilled for entry in entries for each in entry.run.rounds),
        trees=trees,
        sheets=[(entry, sheet) for entry, sheet in zip(entries, sheets, strict=True) if sheet],
        settings=compare(entries) if entries else None,
        style=_part("page.css"),
        script=_part("page.js"),
        data=_packed(json.dumps(specs, separators=(",", ":"), allow_nan=False)),
        plotly=_packed_plotly() if figures else "",
    )


def _template() -> Template:
    """Load the page's template; all that is put into it is escaped unless it is `Markup`."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    filters = cast("dict[str, object]", environment.filters)
    written = (formatting.percent, formatting.duration, formatting.memory, formatting.counted)
    filters |= {function.__name__: function for function in (*written, numeric)}
    return environment.from_string(_part("page.html"))


def numeric(axis: Axis, entries: Sequence[Entry]) -> bool:
    """Whether all values of a field are numbers, where there are any: they stand to the right."""
    found = [axis.value(entry.run) for entry in entries]
    return all(isinstance(value, int | float) for value in found if value is not None)


def _part(name: str) -> Markup:
    """Read a file of this package that goes into the page as it is."""
    return Markup(files("entity.report").joinpath(name).read_text("utf-8"))


@cache
def _packed_plotly() -> str:
    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    """Compress text for `page.js` to unpack; base64 has no character that HTML would read."""
    return base64.b64encode(gzip.compress(text.encode("utf-8"), 9, mtime=0)).decode("ascii")
