"""Put the runs of `drop reproduce rivals` into docs/results, and write docs/LEADERBOARD.md.

    python benchmarks/leaderboard.py --runs runs     (after a batch of runs, before the next commit)
    python benchmarks/leaderboard.py                 (the page alone, from the lines that are there)

Finished runs below the folder become lines of docs/results/rivals.jsonl; lines that are there
already stay, so that runs of several machines and days come together, and those of experiments that
the study file has no more are dropped. The page and its figure are made of the lines alone.
"""

import argparse
import sys
from pathlib import Path

from pages import ROOT
from rivals.lines import STORE, exported, read_lines, write_lines
from rivals.page import figure, page

PAGE, FIGURE = ROOT / "docs" / "LEADERBOARD.md", ROOT / "docs" / "study" / "ranks.svg"


def main() -> int:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="folder of finished runs")
    options = parser.parse_args()
    if options.runs is not None:
        if not options.runs.is_dir():
            parser.error(f"--runs {options.runs}: is no folder")
        write_lines(exported(options.runs, read_lines()), STORE)
    lines = read_lines()
    PAGE.write_text(page(lines))
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(figure(lines))
    print(f"{len(lines)} runs in {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
