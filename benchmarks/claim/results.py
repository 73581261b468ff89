"""What came out, cell by cell: which runs there are, which of them count, and how they compare."""

from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from claim.design import CONFIGURATIONS, NAMES, Design, Labels, design
from claim.lines import Line

HOLDS, BROKEN = 0.05, 0.5
"""A defense holds up to this worst ASR, and is broken from that one on."""


class Results:
    """The lines of the three studies, by cell."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self._at = {(line.study, line.labels, line.seed): line for line in self.lines}

    def at(self, study: str, labels: Labels, seed: int) -> Line | None:
        """Return the line of a cell and a seed; None if it was not run."""
        return self._at.get((study, labels, seed))

    def of(self, study: str, labels: Labels) -> list[Line]:
        """Return the lines of a cell, whether they count or not."""
        seeds = design(study).seeds.get(labels, ())
        return [line for seed in seeds if (line := self.at(study, labels, seed)) is not None]

    def attacked(self, line: Line) -> bool | None:
        """Say whether the attack works where nobody defends; None if that was not run."""
        rule = design(line.study).study.void
        if rule is None or line.cell.get("rate") == "none":
            return None
        twin = tuple(
            rule.label if axis == rule.axis else label for axis, label in line.cell.items()
        )
        found = self.at(line.study, twin, line.seed)
        if found is None or found.worst_asr is None:
            return None
        return found.worst_asr >= rule.below

    def counted(self, study: str, labels: Labels) -> list[Line]:
        """Return the lines of a cell in whose seed the attack is known to work."""
        return [line for line in self.of(study, labels) if self.attacked(line)]

    def worst(self, study: str, labels: Labels) -> float | None:
        """Return the highest worst ASR of the runs of a cell that count; None without any."""
        return max(
            (line.worst_asr for line in self.counted(study, labels) if line.worst_asr is not None),
            default=None,
        )

    def mta(self, study: str, labels: Labels) -> float | None:
        """Return the mean final MTA of the runs of a cell, whether they count or not."""
        found = [line.mta for line in self.of(study, labels) if line.mta is not None]
        return fmean(found) if found else None

    def void(self, study: str, labels: Labels) -> bool:
        """Whether a cell was run, and counts in no seed, as the attack does not work there."""
        found = [self.attacked(line) for line in self.of(study, labels)]
        return bool(found) and all(each is False for each in found)


def cells(found: Design, **labels: str | Sequence[str]) -> Iterator[Labels]:
    """Yield the cells of a design that have these labels, or one of several, on some axes."""
    wanted = {axis: (each,) if isinstance(each, str) else each for axis, each in labels.items()}
    for cell in found.seeds:
        named = dict(zip(found.axes, cell, strict=True))
        if all(named[axis] in allowed for axis, allowed in wanted.items()):
            yield cell


def conditions(defense: str) -> list[Labels]:
    """Return the cells of a defense on MNIST that are attacked."""
    found = design(CONFIGURATIONS)
    rates = [rate for rate in found.labels_of("rate") if rate != "none"]
    return list(cells(found, defense=defense, rate=rates))


def missing(results: Results) -> dict[tuple[str, int], tuple[int, int]]:
    """Return, by study and seed, how many runs are done and how many were planned."""
    counts: dict[tuple[str, int], tuple[int, int]] = {}
    for name in NAMES:
        for labels, seeds in design(name).seeds.items():
            for seed in seeds:
                done, of = counts.get((name, seed), (0, 0))
                counts[name, seed] = (
                    done + (results.at(name, labels, seed) is not None),
                    of + 1,
                )
    return dict(sorted(counts.items(), key=lambda each: (NAMES.index(each[0][0]), each[0][1])))
