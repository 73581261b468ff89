"""Whether two rows of a table differ by more than their seeds: a paired test, and its price.

Runs of one seed share data split, malicious clients and selections, so they are compared pairwise:
a two-sided paired t-test over the seeds that both have (Student, Biometrika 1908). The signed-rank
test of Wilcoxon, usual elsewhere, cannot fall below p = 0.25 with three seeds, nor below 0.0625
with five. The t-test asks instead that the differences are about normal, which three seeds cannot
show: a mark is an indication, not a proof. Many comparisons are corrected by Holm's step-down
method (Scandinavian Journal of Statistics 1979), which needs no independence.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtr  # all of scipy.stats takes most of a second to import

FEWEST = 3
"""Shared seeds below which nothing is tested: two differences say next to nothing of a spread."""

LEVEL = 0.05


def paired_p(first: Mapping[str, float], second: Mapping[str, float]) -> float | None:
    """Return the two-sided p of a paired t-test over the seeds that both have.

    Parameters
    ----------
    first, second
        A value for each seed.

    Returns
    -------
    float | None
        None with fewer than three shared seeds, and where all differences are the same but not
        zero: they have no spread to hold their mean against. 1 where all are zero.

    Examples
    --------
    >>> a, b = {"1": 0.9, "2": 0.8, "3": 0.7}, {"1": 0.7, "2": 0.7, "3": 0.7}
    >>> round(paired_p(a, b), 4)  # t = sqrt(3) with 2 degrees of freedom
    0.2254
    """
    seeds = sorted(first.keys() & second.keys())
    if len(seeds) < FEWEST:
        return None
    ours, theirs = (np.array([one[seed] for seed in seeds]) for one in (first, second))
    differences = ours - theirs
    if np.ptp(differences) <= 1e-12:
        return 1.0 if abs(differences[0]) <= 1e-12 else None
    count = len(seeds)
    t = differences.mean() / (differences.std(ddof=1) / math.sqrt(count))
    return 2 * float(stdtr(count - 1, -abs(t)))


def differ_alike(first: Mapping[str, float], second: Mapping[str, float]) -> bool:
    """Whether enough shared seeds differ, all by the same: there is no spread to test with.

    Examples
    --------
    >>> differ_alike({"1": 1.0, "2": 1.0, "3": 1.0}, {"1": 0.0, "2": 0.0, "3": 0.0})
    True
    """
    shared = len(first.keys() & second.keys())
    return shared >= FEWEST and paired_p(first, second) is None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust the p-values of a family so that one false finding in it has chance `LEVEL`.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda each: p_values[each])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted
