"""Runs that are killed at random moments and resumed: they end as one that never was.

Most die as forked processes; of every twenty, one is a whole process of the command line with its
workers, and one a sweep.
"""

import shutil
from collections import Counter
from pathlib import Path
from random import Random

from entity.cli import main
from robustness.federations import Undisturbeds, Variant, drawn
from robustness.folders import difference, half_written
from robustness.processes import killed_command, killed_sweep
from robustness.tally import ENOUGH, Case, Tally
from robustness.victims import doom, forked

HIT = 0.5
"""Kills that must come before the end of what they are to kill, for each case."""


class Kills:
    """The figure.

    Parameters
    ----------
    folder
        Where runs lie; that of a failed case stays.
    """

    in_process = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.undisturbed = Undisturbeds(folder)

    def case(self, seed: int) -> Case:
        """Kill one run or sweep until it has had enough, and let it finish."""
        rng, variant, folder = drawn("kills", seed, self.folder)
        kinds = {7: killed_command, 17: killed_sweep}
        found = kinds.get(seed % 20, killed_fork)(rng, variant, folder, self.undisturbed)
        if not found.failure:
            shutil.rmtree(folder.parent)
        return found

    def shortfall(self, tally: Tally) -> str:
        """Say that too few kills hit."""
        hits = sum(count for name, count in tally.counts.items() if name.endswith(" hit"))
        if tally.cases >= ENOUGH and hits < HIT * tally.cases:
            return f"{hits} kills hit, and at least {HIT * tally.cases:.0f} should"
        return ""


def killed_fork(rng: Random, variant: Variant, folder: Path, undisturbeds: Undisturbeds) -> Case:
    """Kill `drop run` as a forked process."""
    undisturbed = undisturbeds.of(variant)
    counts = Counter({"runs forked": 1})
    ways = [doom(rng, undisturbed.operations, undisturbed.seconds) for _ in range(3)]
    for way in [*ways[: rng.randrange(1, 4)], None]:
        end = forked(main, [variant.resume(folder)], folder, way)
        if end.code and not (way and end.stopped):
            return Case(counts, f"{variant}, {way}: {end}")
        if broken := half_written(folder):
            return Case(counts, f"{variant}, {way}: {broken}")
        if way is not None:
            counts[f"{way.number.name} hit" if end.code else "signals came too late"] += 1
        if end.code == 0:
            break
    return Case(counts, difference(folder, undisturbed.folder))
