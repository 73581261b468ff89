"""Robustness, counted: configurations, kills, hostile replies and full disks.

    python benchmarks/stress.py
    python benchmarks/stress.py --only replies --replies 2000 --seed 7

Each figure tries random cases, each with a seed of its own (`--seed`, and those after it), and
prints a line with counts. A case that fails is printed with its seed and the command that tries it
again. The exit code is 1 if any fails, or if the cases prove nothing, such as configurations of
which hardly any are accepted.
"""

import argparse
import logging
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

from robustness.configurations import Configurations
from robustness.flower_kills import FlowerKills
from robustness.full_disk import FullDisk
from robustness.kills import Kills
from robustness.replies import Replies
from robustness.tally import Case, Figure, Tally
from robustness.victims import server

from entity.engine import cores


class Entry(NamedTuple):
    """A figure of the command line."""

    make: Callable[[Path], Figure]
    cases: int
    """By default."""
    what: str


FIGURES = {
    "configurations": Entry(lambda _: Configurations(), 10_000, "random configurations"),
    "kills": Entry(Kills, 400, "runs and sweeps to kill and to resume"),
    "flower-kills": Entry(FlowerKills, 100, "Flower strategies to kill and to start again"),
    "replies": Entry(lambda _: Replies(), 500, "hostile replies of nodes"),
    "full-disk": Entry(FullDisk, 100, "runs that meet a full disk"),
}


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", choices=FIGURES, help="one figure alone")
    for name, entry in FIGURES.items():
        text = f"{entry.what} (default: {entry.cases})"
        parser.add_argument(f"--{name}", type=int, default=entry.cases, metavar="N", help=text)
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: 0)")
    parser.add_argument("--jobs", type=int, default=cores(), help="cases side by side")
    options = parser.parse_args()
    logging.getLogger("entity").setLevel(logging.ERROR)
    folder = Path(tempfile.mkdtemp(prefix="stress-"))
    failed = False
    try:
        for name in [options.only] if options.only else FIGURES:
            cases = getattr(options, name.replace("-", "_"))
            seeds = range(options.seed, options.seed + cases)
            failed |= try_all(name, seeds, options.jobs, folder / name)
    finally:
        if failed:
            print(f"what failed lies in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return int(failed)


def try_all(name: str, seeds: range, jobs: int, folder: Path) -> bool:
    """Try all cases of a figure, print its line, and return whether anything failed."""
    folder.mkdir()
    figure, tally, began = FIGURES[name].make(folder), Tally(), time.monotonic()
    for seed, case in zip(seeds, _cases(figure, seeds, jobs), strict=True):
        tally.add(seed, case)
        if case.failure:
            again = f"--only {name} --{name} 1 --seed {seed}"
            print(f"{name}, seed {seed}: {case.failure}\n    python benchmarks/stress.py {again}")
            sys.stdout.flush()
    shortfall = figure.shortfall(tally)
    print(f"{name}: {tally}; {time.monotonic() - began:.0f} s", flush=True)
    if shortfall:
        print(f"{name}: {shortfall}", flush=True)
    return bool(tally.failures or shortfall)


def _cases(figure: Figure, seeds: Iterable[int], jobs: int) -> Iterator[Case]:
    if not figure.in_process:
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(tried, repeat(figure), seeds)
    elif jobs == 1:
        yield from map(tried, repeat(figure), seeds)
    else:
        with ProcessPoolExecutor(jobs, server()) as pool:
            yield from pool.map(tried, repeat(figure), seeds, chunksize=20)


def tried(figure: Figure, seed: int) -> Case:
    """Try a case; what it raises itself is a failure, too, and does not end the others."""
    try:
        return figure.case(seed)
    except Exception as error:
        traceback.print_exc()
        return Case(Counter(), f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
