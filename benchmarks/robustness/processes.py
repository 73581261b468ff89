"""Whole processes of the command line that are killed: a run with its workers, and a sweep."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random

from pages import ROOT

from robustness.federations import Undisturbeds, Variant
from robustness.folders import difference, finished_rounds, half_written
from robustness.tally import Case
from robustness.victims import PATIENCE, End, draw_signal

START = 8.0
"""Seconds that a process takes to import everything and to begin, about."""

SEEDS = (1, 2)
"""Of a sweep."""


class Command:
    """A command of `drop` in a session of its own.

    Parameters
    ----------
    words
        Of the command line.
    folder
        Where its runs lie.
    """

    def __init__(self, words: Sequence[str], folder: Path) -> None:
        self.folder = folder
        self.log = folder.with_name(f"{folder.name}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "entity.cli", *words],
                env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self, rng: Random) -> signal.Signals:
        """Send a random signal at a random moment, to the command alone or to all its session."""
        before, number = finished_rounds(self.folder), draw_signal(rng)
        if rng.random() < 0.7:
            end = time.monotonic() + PATIENCE
            while finished_rounds(self.folder) == before and time.monotonic() < end:
                if self._over(0.01):
                    return number
            self._over(rng.uniform(0, 0.5))
        else:
            self._over(rng.uniform(0, START))
        everybody = rng.random() < 0.3
        for pid in self.members() if everybody else [self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)
        return number

    def _over(self, seconds: float) -> bool:
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        return self.process.poll() is not None

    def members(self) -> list[int]:
        """Return the processes of the session that still live."""
        found: list[int] = []
        for entry in Path("/proc").glob("[0-9]*/stat"):
            try:
                state, _, _, session = entry.read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == self.process.pid and state != "Z":
                found.append(int(entry.parent.name))
        return found

    def end(self) -> tuple[End, str]:
        """Wait for its end, and return that and what is wrong with it beside the exit code."""
        hung = not self._over(PATIENCE)
        deadline = time.monotonic() + 30
        while not hung and self.members() and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.members()
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        end = End(self.process.wait(), self.log.read_text(errors="replace"), hung)
        return end, f"{len(left)} processes stay behind" if left else ""


def killed(
    rng: Random, folder: Path, next_words: Callable[[], list[str]], counts: Counter[str]
) -> str:
    """Kill a command once or twice, go on with it until it finishes, and say what went wrong."""
    for way in [True] * rng.randrange(1, 3) + [False]:
        command = Command(next_words(), folder)
        number = command.kill(rng) if way else None
        end, wrong = command.end()
        if wrong or (end.code and not (way and end.stopped)):
            return f"{number.name if number else 'undisturbed'}: {wrong or end}"
        if broken := half_written(folder):
            return broken
        if number is not None:
            counts[f"{number.name} hit" if end.code else "signals came too late"] += 1
        if end.code == 0:
            return ""
    return ""


def killed_command(rng: Random, variant: Variant, folder: Path, undisturbed: Undisturbeds) -> Case:
    """Kill `drop run`, in half of the cases with two workers."""
    counts = Counter({"runs as whole processes": 1})
    changes = rng.choice([{}, {"engine": "pool", "workers": 2}])
    wrong = killed(rng, folder, lambda: variant.resume(folder, **changes), counts)
    failure = wrong or difference(folder, undisturbed.of(variant).folder)
    return Case(counts, f"{variant} {changes}: {failure}" if failure else "")


def killed_sweep(rng: Random, variant: Variant, folder: Path, undisturbed: Undisturbeds) -> Case:
    """Kill `drop sweep` of two runs."""
    counts = Counter({"sweeps": 1})
    variants = {seed: variant._replace(seed=seed) for seed in SEEDS}
    expected = {seed: undisturbed.of(each).folder for seed, each in variants.items()}
    config = json.loads((expected[1] / "config.json").read_text())
    del config["name"]
    (folder.parent / "base.json").write_text(json.dumps(config))
    grid = folder.parent / "grid.json"
    grid.write_text(json.dumps({"axes": {"config": ["base.json"]}, "seeds": list(SEEDS)}))
    words = ["sweep", str(grid), "--out", str(folder), "--jobs", "1"]
    wrong = killed(rng, folder, lambda: words, counts)
    if wrong:
        return Case(counts, f"{variant}: {wrong}")
    found = {
        json.loads(path.read_text())["seed"]: path.parent for path in folder.glob("*/summary.json")
    }
    if set(found) != set(SEEDS):
        return Case(counts, f"{variant}: runs of the seeds {sorted(found)} alone")
    differences = [difference(found[seed], expected[seed]) for seed in SEEDS]
    failure = "; ".join(part for part in differences if part)
    return Case(counts, f"{variant}: {failure}" if failure else "")
