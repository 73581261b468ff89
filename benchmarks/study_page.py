"""Put the runs of `drop reproduce configurations` into docs/results, and write docs/STUDY.md.

    python benchmarks/study_page.py --runs runs      (after a batch of runs, before the next commit)
    python benchmarks/study_page.py                  (the page alone, from the lines that are there)

Finished runs below the folder become lines of docs/results/configurations.jsonl; lines that are
there already stay, so that runs of several machines and days come together. Those of experiments
that the study files have no more are dropped. The page and its heat maps (docs/study) are made of
the lines alone, and show what was not run yet as that; a study without any run has no map.
"""

import argparse
import sys
from pathlib import Path

from claim.lines import STORE, exported, read_lines, write_lines
from claim.page import MAPS as TITLES
from claim.page import maps, page
from claim.results import Results, missing
from pages import ROOT

PAGE, MAPS = ROOT / "docs" / "STUDY.md", ROOT / "docs" / "study"


def files(results: Results) -> dict[Path, str]:
    """Return the page and its heat maps, by path."""
    return {
        PAGE: page(results),
        **{MAPS / f"{name}.svg": text for name, text in maps(results).items()},
    }


def main() -> int:
    """Read the command line, and do what it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="folder of finished runs")
    options = parser.parse_args()
    lines = read_lines()
    if options.runs is not None:
        if not options.runs.is_dir():
            parser.error(f"--runs {options.runs}: is no folder")
        lines = exported(options.runs, lines)
        write_lines(lines, STORE)
    results = Results(read_lines())
    MAPS.mkdir(exist_ok=True)
    made = files(results)
    for path, text in made.items():
        path.write_text(text)
    for name in TITLES:
        if (path := MAPS / f"{name}.svg") not in made:
            path.unlink(missing_ok=True)
    for (name, seed), (done, of) in missing(results).items():
        print(f"{name}, seed {seed}: {done} of {of} runs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
