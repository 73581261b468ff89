"""The command `drop report`."""

import argparse
import logging
from pathlib import Path
from typing import Any

from entity.cli import console
from entity.cli.refusals import given_by
from entity.cli.sweep import add_acceptable
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.record.atomic import CannotWrite
from entity.report import (
    BadStyle,
    BadTable,
    FigureStyle,
    NotAFolder,
    TableRequest,
    missing_extra,
    write_folder,
    write_page,
)
from entity.results.titles import read_names

_PAGES = (".html", ".htm")


def add_report_command(commands: Any) -> None:
    """Add `drop report`."""
    report = commands.add_parser(
        "report",
        help="make a page, and a paper's tables and figures, of runs",
        description="Make one page of runs, or a folder with a page, tables and figures.",
        epilog="Fields may leave out their first tables: --rows defense --columns attack,DPR. "
        "If only one side is given, the other gets all other fields in which the runs differ.",
        allow_abbrev=False,
    )
    report.add_argument(
        "runs", type=user_path, nargs="+", metavar="RUN", help="run directories, or folders of them"
    )
    report.add_argument(
        "--out",
        type=user_path,
        default=Path("report.html"),
        metavar="PATH",
        help="page to write, if it ends in .html; else a folder for index.html, tables and figures",
    )
    report.add_argument(
        "--rows",
        type=_names,
        default=[],
        metavar="FIELDS",
        help="fields down the side of the table",
    )
    report.add_argument(
        "--columns", type=_names, default=[], metavar="FIELDS", help="fields across its top"
    )
    report.add_argument(
        "--against",
        metavar="ROW",
        help="row that the others are tested against (default: the best of each column)",
    )
    report.add_argument(
        "--figures",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="draw figures into the folder (default: yes; extra `figures`)",
    )
    report.add_argument(
        "--figure-width",
        type=float,
        metavar="INCHES",
        help="width of the figures (default: 3.4, a column of two)",
    )
    report.add_argument(
        "--figure-font",
        metavar="FAMILY",
        help="font of the figures: serif, sans-serif, or one that is installed",
    )
    report.add_argument(
        "--figure-font-size", type=float, metavar="POINTS", help="size of their text (default: 8)"
    )
    add_acceptable(report)
    add_names(report, "tables and figures")
    report.set_defaults(go=_report)


def add_names(parser: argparse.ArgumentParser, where: str) -> None:
    """Add `--names`; `where` says in the help what has them."""
    parser.add_argument(
        "--names",
        metavar="NAME=TITLE,...",
        help=f"what methods are called in {where} (default: as published, such as DROPlet and "
        "Multi-Krum)",
    )


def names_given(text: str | None) -> dict[str, str]:
    """Read what `--names` gave."""
    with given_by("--names"):
        return {} if text is None else read_names(text)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("names no field")
    return names


def _report(options: argparse.Namespace) -> int:
    try:
        with given_by("--out", CannotWrite, NotAFolder):
            return _write(options)
    except (BadStyle, BadTable) as error:
        raise ConfigError(f"--{error}") from error  # it begins with the option


def _style(options: argparse.Namespace) -> FigureStyle:
    given = {
        field: value
        for field, value in (
            ("width", options.figure_width),
            ("font", options.figure_font),
            ("size", options.figure_font_size),
        )
        if value is not None
    }
    return FigureStyle(**given)


def _refuse_without_effect(options: argparse.Namespace, *, page: bool) -> None:
    """Refuse what would say how figures of a folder are drawn where none is."""
    if page and not options.figures:
        raise ConfigError("--no-figures: needs a folder, --out FOLDER; a page is drawn whole.")
    for name in ("width", "font", "font_size"):
        if getattr(options, f"figure_{name}") is None or (options.figures and not page):
            continue
        said = f"--figure-{name.replace('_', '-')}"
        needs = "a folder, --out FOLDER; a page has none of these figures"
        raise ConfigError(f"{said}: needs {needs if page else 'figures; leave out --no-figures'}.")


def _write(options: argparse.Namespace) -> int:
    page = options.out.suffix.lower() in _PAGES
    _refuse_without_effect(options, page=page)
    style = _style(options)
    asked = TableRequest(options.rows, options.columns, options.against, names_given(options.names))
    shared: dict[str, Any] = {"left_out": console.warn, "mta_at_least": options.acceptable}
    if page:
        written = write_page(options.runs, options.out, asked=asked, **shared)
        console.say(f"Report: {written}")
        return 0
    for name in ("fontTools", "matplotlib"):  # they log every glyph of every PDF
        logging.getLogger(name).setLevel(logging.WARNING)
    lacking = missing_extra() if options.figures else ""
    figures = options.figures and not lacking
    parts = write_folder(options.runs, options.out, asked, figures=figures, style=style, **shared)
    console.say(f"Report: {parts[0]}")
    for part in ("tables", "figures"):
        if count := sum(path.parent.name == part for path in parts):
            console.say(f"{count} files in {options.out / part}")
    if lacking:
        console.warn(lacking)
    return 0
