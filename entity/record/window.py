"""The last evaluated rounds, which a run's figures are means of, and whether a mean says enough.

The mean of a curve that still rises is lower than where the curve has come to. A curve counts as
rising if, by least squares through the values of the window in their order, the line's slope is
above 0 with p < 0.05 (one-sided t-test, n - 2 degrees of freedom) and the line rises by more than
2 points from the first value to the last. Below three values nothing is said.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from scipy.special import stdtr

from entity.record.json_fields import mapping, number

LAST = 10
"""Evaluated rounds, at the end of a run, that a mean is taken over."""

LEVEL = 0.05
"""p below which a slope counts as one."""

RISE = 0.02
"""Rise over the window, a share of one, up to which a curve counts as level."""

TITLES = {"mta": "MTA", "asr": "ASR"}

_MOST_NAMES = 5


def last_evaluated(values: Iterable[float | None], last: int = LAST) -> list[float]:
    """Return a metric in the last rounds that were evaluated; the others have None.

    Examples
    --------
    >>> last_evaluated([0.1, None, 0.2, None, 0.3, None], last=2)
    [0.2, 0.3]
    """
    return [value for value in values if value is not None][-last:]


def still_rises(values: Sequence[float]) -> bool:
    """Whether a curve rises over these values, by the rule of this module.

    Examples
    --------
    >>> still_rises([0.10, 0.14, 0.16, 0.20]), still_rises([0.90, 0.91, 0.90, 0.91])
    (True, False)
    """
    n = len(values)
    if n < 3:
        return False
    middle, mean = (n - 1) / 2, fmean(values)
    spread = n * (n * n - 1) / 12  # of the places 0 to n - 1
    slope = sum((place - middle) * value for place, value in enumerate(values)) / spread
    if slope * (n - 1) <= RISE:
        return False
    rest = sum((v - mean - slope * (place - middle)) ** 2 for place, v in enumerate(values))
    error = (rest / (n - 2) / spread) ** 0.5
    return error == 0 or float(stdtr(n - 2, -slope / error)) < LEVEL


@dataclass(frozen=True)
class Window:
    """What the means of one run were taken over."""

    taken: int
    """Rounds in the mean."""
    evaluated: int
    """Rounds of the run that were evaluated."""
    rounds: int
    """Rounds of the run."""
    rising: tuple[str, ...] = ()
    """Metrics that still rise over the window: `mta`, `asr`."""

    @classmethod
    def of(cls, rounds: Sequence[Mapping[str, Any]]) -> "Window":
        """Return the window of lines of `rounds.jsonl`."""
        evaluated = sum(line.get("mta") is not None for line in rounds)
        rising = tuple(
            name
            for name in TITLES
            if still_rises(last_evaluated(line.get(name) for line in rounds))
        )
        return cls(min(LAST, evaluated), evaluated, len(rounds), rising)

    @classmethod
    def read(cls, summary: Mapping[str, object]) -> "Window | None":
        """Return the window that a summary tells of; None for those of earlier versions."""
        kept = mapping(summary.get("window"))
        counts = [number(kept, name) for name in ("taken", "evaluated", "rounds")]
        taken, evaluated, rounds = (None if each is None else int(each) for each in counts)
        if taken is None or evaluated is None or rounds is None:
            return None
        said = kept.get("rising")
        rising = tuple(name for name in TITLES if isinstance(said, list) and name in said)
        return cls(taken, evaluated, rounds, rising)

    def as_json(self) -> dict[str, Any]:
        """Return what `read` reads."""
        return {**asdict(self), "rising": list(self.rising)}


def span(windows: Iterable[Window | None]) -> str:
    """Say which rounds some runs' means are of.

    Examples
    --------
    >>> span([Window(8, 8, 8)]), span([Window(8, 8, 8), Window(10, 40, 40)])
    ('last 8 of 8 rounds', 'last 8 to 10 of 8 to 40 rounds')
    >>> span([Window(10, 11, 31)]), span([None])
    ('last 10 of 11 evaluated rounds', 'last 10 evaluated rounds, or as many as there are')
    """
    found = list(windows)
    known = [window for window in found if window is not None and window.taken]
    if not known or None in found:
        return f"last {LAST} evaluated rounds, or as many as there are"
    rounds = (
        "rounds" if all(each.evaluated == each.rounds for each in known) else "evaluated rounds"
    )
    taken, of = ([getattr(each, name) for each in known] for name in ("taken", "evaluated"))
    return f"last {_range(taken)} of {_range(of)} {rounds}"


def remark(named: Iterable[tuple[str, Window | None]]) -> str:
    """Name the runs whose curves still rise; "" if none does.

    Examples
    --------
    >>> remark([("a", Window(10, 10, 10, ("asr",))), ("b", Window(10, 10, 10))])
    'Still rising over these rounds, so that the mean is below where it ends: ASR of a.'
    """
    rising: dict[str, list[str]] = {}
    for name, window in named:
        for metric in window.rising if window else ():
            rising.setdefault(metric, []).append(name)
    if not rising:
        return ""
    said = "; ".join(f"{TITLES[metric]} of {_names(names)}" for metric, names in rising.items())
    return f"Still rising over these rounds, so that the mean is below where it ends: {said}."


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low}" if low == high else f"{low} to {high}"


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
