"""Put the runs of `drop reproduce rivals` into docs/results, and write docs/LEADERBOARD.md.

    python benchmarks/leaderboard.py --runs runs     (after a batch of runs, before the next commit)
    python benchmarks/leaderboard.py                 (the page alone, from the lines that are there)
    python benchmarks/leaderboard.py --runs runs/rivals --plugins mine.py --add defense=mine \
        --page mine.md                               (a page and a method of one's own)

Finished runs below the folder become lines of docs/results/rivals.jsonl; lines that are there
already stay, so that runs of several machines and days come together, and those of experiments that
the study file has no more are dropped. The page and its figures are made of the lines alone. With
--page nothing else is written: the figures lie beside that page.
"""

import argparse
import shlex
import sys
from pathlib import Path

from pages import ROOT
from rivals.lines import STORE, exported, read_lines, write_lines
from rivals.own import grid_with, own_lines
from rivals.page import Added, costs, figure, page

from entity.config.schema import ConfigError

PAGE, FIGURES = ROOT / "docs" / "LEADERBOARD.md", ROOT / "docs" / "study"
FIGURE, COSTS = FIGURES / "ranks.svg", FIGURES / "costs.svg"


def main() -> int:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="folder of finished runs")
    parser.add_argument("--page", type=Path, metavar="FILE", help="instead of docs/LEADERBOARD.md")
    for name in ("plugins", "add"):
        said = f"as drop reproduce rivals --{name} had it; needs --runs and --page"
        parser.add_argument(f"--{name}", nargs="+", action="extend", default=[], help=said)
    options = parser.parse_args()
    for name in ("plugins", "add"):
        if getattr(options, name) and (options.page is None or options.runs is None):
            parser.error(f"--{name}: needs --runs, and --page for a page of its own")
    if options.runs is not None and not options.runs.is_dir():
        parser.error(f"--runs {options.runs}: is no folder")
    if options.page is not None:
        if not options.page.parent.is_dir():
            parser.error(f"--page {options.page}: there is no folder {options.page.parent}")
        try:
            return _own_page(options)
        except ConfigError as error:
            parser.error(str(error))
    if options.runs is not None:
        write_lines(exported(options.runs, read_lines()), STORE)
    lines = read_lines()
    PAGE.write_text(page(lines))
    FIGURES.mkdir(exist_ok=True)
    FIGURE.write_text(figure(lines))
    COSTS.write_text(costs(lines))
    print(f"{len(lines)} runs in {PAGE.relative_to(ROOT)}")
    return 0


def _own_page(options: argparse.Namespace) -> int:
    """Write a page of the lines, of runs of a folder, and of methods that were added."""
    lines, page_file = read_lines(), options.page
    if options.runs is not None:
        lines = exported(options.runs, lines)
    if options.add:
        lines += own_lines(options.runs, grid_with(options.plugins, options.add))
    given = {"--plugins": options.plugins, "--add": options.add}
    words = [word for name, values in given.items() if values for word in (name, *values)]
    ranks = page_file.with_suffix(".svg")
    beside = page_file.with_name(f"{page_file.stem}-costs.svg")
    page_file.write_text(page(lines, Added(shlex.join(words), ranks.name, beside.name)))
    ranks.write_text(figure(lines))
    beside.write_text(costs(lines))
    print(f"{len(lines)} runs in {page_file}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
