"""The report as a folder: the page, the tables and the figures of a paper."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from entity.config.schema import ConfigError
from entity.record.atomic import write_atomically, writing
from entity.report import paper_table_text
from entity.report.entries import make_entries
from entity.report.page import TITLE, render
from entity.report.paper_figures import FILES, FigureStyle, draw_paper_figures
from entity.report.paper_table import METRICS, PaperTable, TableRequest
from entity.report.runs import read_runs


class NotAFolder(ConfigError):
    """A file is where the folder of a report would be; the sentence begins with its path."""


def write_folder(
    run_dirs: Sequence[Path],
    out: Path,
    asked: TableRequest | None = None,
    title: str = TITLE,
    *,
    figures: bool = True,
    style: FigureStyle | None = None,
    left_out: Callable[[str], None] | None = None,
    mta_at_least: float | None = None,
) -> list[Path]:
    """Write `index.html`, `tables/` and `figures/`.

    Parameters
    ----------
    run_dirs
        Run directories; a run that did not end is shown as far as it went, but is in no table.
    out
        The folder; it is made if need be, and its files are replaced.
    asked
        Fields of the tables.
    title
        Heading of the page.
    figures
        Whether to draw the figures of `paper_figures`, which need the extra `figures`.
    style
        Their width and font; None takes the defaults.
    left_out, mta_at_least
        As `write_page` takes them.

    Returns
    -------
    list of Path
        The files, the page first.

    Raises
    ------
    BadStyle, BadTable
        For a font that is not installed, and fields that make no table.
    CannotWrite, NotAFolder
        Where `out` cannot be written. Nothing is written before all is made.
    ConfigError
        For a directory that does not exist, or where no run can be read.
    """
    asked = asked or TableRequest()
    entries = make_entries(read_runs(run_dirs, left_out), asked.names, mta_at_least)
    table = asked.table(entries)
    files = {"index.html": render(entries, title, table).encode(errors="backslashreplace")}
    files |= {f"tables/{name}": text for name, text in _tables(table).items()}
    if figures:
        files |= {f"figures/{k}": v for k, v in draw_paper_figures(entries, style).items()}
    if out.exists() and not out.is_dir():
        raise NotAFolder(f"{out}: is a file; name a folder, or a page that ends in .html.")
    with writing(out):
        for name, content in files.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
        _remove_old(out, files)
    return [out / name for name in files]


def _remove_old(out: Path, files: Collection[str]) -> None:
    """Remove the figures of an earlier report: beside new tables they are wrong."""
    for name in FILES:
        path = out / "figures" / name
        if f"figures/{name}" not in files and path.is_file():
            path.unlink()


def _tables(table: PaperTable) -> dict[str, bytes]:
    tables = {"results": table} | {metric: table.only(metric) for metric in METRICS}
    texts: dict[str, str] = {}
    for name, each in tables.items():
        texts[f"{name}.md"] = paper_table_text.markdown(each)
        texts[f"{name}.tex"] = paper_table_text.latex(each, name)
        texts[f"{name}.csv"] = paper_table_text.csv(each)
    return {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
