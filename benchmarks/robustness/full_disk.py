"""Runs whose disk is full at some moment: one line says so, and nothing half-written is left.

Half of the cases run on a file system in memory that is too small (a mount in a namespace of the
process, where that is allowed), the others under a limit of the size of files.
"""

import shutil
import signal
from collections import Counter
from pathlib import Path

from entity.cli import main
from robustness.federations import Undisturbeds, drawn
from robustness.folders import difference, half_written
from robustness.small_disk import can_mount, on_small_disk
from robustness.tally import ENOUGH, Case, Tally
from robustness.victims import Doom, End, forked

MET = 0.5
"""Share of the attempts that must meet the end of the disk."""


class FullDisk:
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
        """Fill the disk once or twice under one run, and let it finish."""
        rng, variant, folder = drawn("full disk", seed, self.folder)
        undisturbed = self.undisturbed.of(variant)
        counts: Counter[str] = Counter()
        for _ in range(rng.randrange(1, 3)):
            size = round(10 ** rng.uniform(2, 6.5))
            if rng.random() < 0.5 and can_mount():
                what = f"{size} bytes of disk left"
                counts["small disks"] += 1
                end = forked(on_small_disk, (variant, folder, size), folder)
            else:
                way = Doom(at=rng.randrange(1, undisturbed.operations + 1), limit=size)
                what = str(way)
                counts["limits"] += 1
                end = forked(main, [variant.resume(folder)], folder, way)
            counts[how(end)] += 1
            if end.hung:
                return Case(counts, f"{variant}, {what}: it hung")
            if how(end).startswith("untidy"):
                return Case(counts, f"{variant}, {what}: ended {how(end)}")
            if broken := half_written(folder):
                return Case(counts, f"{variant}, {what}: {broken}")
        end = forked(main, [variant.resume(folder)], folder)
        wrong = str(end) if end.code else difference(folder, undisturbed.folder)
        if wrong:
            return Case(counts, f"{variant}, after {what}: {wrong}")
        shutil.rmtree(folder.parent)
        return Case(counts)

    def shortfall(self, tally: Tally) -> str:
        """Say that too few attempts met the end of the disk."""
        attempts = tally.counts["small disks"] + tally.counts["limits"]
        met = attempts - tally.counts["disk sufficed"]
        if tally.cases >= ENOUGH and met < MET * attempts:
            return f"{met} of {attempts} attempts met the end of the disk; {MET:.0%} should"
        return ""


def how(end: End) -> str:
    """Say how an attempt ended."""
    if end.code == 0:
        return "disk sufficed"
    if end.code < 0:
        return f"untidy ({signal.Signals(-end.code).name})"
    if "Traceback" in end.output:
        return f"untidy ({end.last_line.split(':')[0].rsplit('.')[-1]})"
    return "said in a line"
