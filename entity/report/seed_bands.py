"""A curve over rounds of several seeds: its mean, and how far the seeds lie apart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from entity.report.entries import Entry
from entity.report.runs import RunRecord
from entity.results.tables import Spread

Curve = Mapping[int, float]
"""A metric by round."""


@dataclass(frozen=True)
class Point:
    """All seeds at one round."""

    at: int
    mean: float
    sd: float | None
    """Sample standard deviation; None for a single seed."""
    n: int

    @property
    def low(self) -> float:
        """Lower edge of the band: mean - sd, but not below 0."""
        return max(0.0, self.mean - (self.sd or 0.0))

    @property
    def high(self) -> float:
        """Upper edge of the band: mean + sd, but not above 1."""
        return min(1.0, self.mean + (self.sd or 0.0))


def series(run: RunRecord, metric: Literal["mta", "asr"]) -> dict[int, float]:
    """Return a metric by round, of those rounds in which it was evaluated."""
    found = ((each.round, each.mta if metric == "mta" else each.asr) for each in run.rounds)
    return {at: value for at, value in found if value is not None}


def by_seed(entries: Sequence[Entry], metric: str) -> dict[str, float]:
    """Return a figure of runs that are else alike, by seed; a seed that was run again has its mean.

    Parameters
    ----------
    entries
        The runs.
    metric
        Name of a field of their outcomes; runs without it say nothing.
    """
    found: dict[str, list[float]] = {}
    for entry in entries:
        if (value := getattr(entry.outcome, metric)) is not None:
            found.setdefault(entry.seed, []).append(value)
    return {seed: fmean(values) for seed, values in found.items()}


def curves_by_seed(entries: Sequence[Entry], curve: Callable[[RunRecord], Curve]) -> list[Curve]:
    """Return a curve for each seed of runs that are else alike.

    Of a seed that was run again it is the mean at each round.

    Parameters
    ----------
    entries
        The runs.
    curve
        Returns that of a run; empty for one that has none.
    """
    found: dict[str, list[Curve]] = {}
    for entry in entries:
        found.setdefault(entry.seed, []).append(curve(entry.run))
    return [
        curves[0]
        if len(curves) == 1
        else {at: fmean(c[at] for c in curves if at in c) for c in curves for at in c}
        for curves in found.values()
    ]


def bands_of(groups: Sequence[Sequence[Entry]], metric: Literal["mta", "asr"]) -> list[list[Point]]:
    """Return all seeds of each group at each round."""
    return [over_seeds(curves_by_seed(group, lambda run: series(run, metric))) for group in groups]


def over_seeds(curves: Sequence[Curve]) -> list[Point]:
    """Sum up curves round by round; a run that ended early counts as far as it goes.

    Examples
    --------
    >>> over_seeds([{1: 0.2, 2: 0.4}, {1: 0.4}])[1]
    Point(at=2, mean=0.4, sd=None, n=1)
    """
    points: list[Point] = []
    for at in sorted({at for curve in curves for at in curve}):
        spread = Spread.of([curve[at] for curve in curves if at in curve])
        assert spread is not None
        points.append(Point(at, spread.mean, spread.sd, spread.n))
    return points


def by_group(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Put the runs of one configuration together, in the order of the groups."""
    found: dict[int, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.group.index, []).append(entry)
    return list(found.values())
