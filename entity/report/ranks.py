"""Which defense is better over many settings: mean ranks, and a stated test of them.

Runs that differ by their defense alone are a block: one attack, one data set and split, one seed.
In each block the defenses are ranked, the best first, ties by their mean rank. Friedman's test, in
the form of Iman and Davenport (Communications in Statistics 1980), asks whether all mean ranks
may be equal; if not, two of them differ by Nemenyi's test if they are further apart than its
critical difference (Demsar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR
2006). Ranks need no unit and no normal distribution, so that settings of all kinds count alike.
Blocks that share an attack or a seed are not independent, which makes the test optimistic.
"""

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entity.report.significance import LEVEL

FEWEST_METHODS, FEWEST_BLOCKS = 3, 2
"""Below which there is nothing to test."""
MOST_NAMED = 10
"""Methods as good as the first, of which more are not named."""


@dataclass(frozen=True)
class Ranking:
    """Mean ranks over the blocks that have all of the methods."""

    methods: tuple[str, ...]
    """The best first."""
    ranks: tuple[float, ...]
    """Mean rank of each; 1 is the best."""
    blocks: int
    p: float
    """That all mean ranks are equal, by the test of Friedman, Iman and Davenport."""
    critical: float
    """Nemenyi's critical difference of two mean ranks, at 5 %."""
    left_out: tuple[str, ...] = ()
    """Methods that too few blocks have."""
    chi_p: float = math.nan
    """The same by Friedman's own chi-square, which says less with few blocks of many methods."""

    @property
    def tells(self) -> bool:
        """Whether any two mean ranks are further apart than the critical difference."""
        return self.differ and self.ranks[-1] - self.ranks[0] > self.critical

    @property
    def differ(self) -> bool:
        """Whether the ranks may be told apart at all."""
        return self.p < LEVEL

    @property
    def as_good(self) -> tuple[str, ...]:
        """The methods that are not significantly worse than the best, the best itself first."""
        bound = self.ranks[0] + (self.critical if self.differ else math.inf)
        return tuple(
            name for name, rank in zip(self.methods, self.ranks, strict=True) if rank <= bound
        )

    def said(self, titles: Mapping[str, str] | None = None) -> str:
        """Say what the tests say.

        Parameters
        ----------
        titles
            What to call methods; one that is not among them goes by its name.

        Examples
        --------
        >>> Ranking(("drop", "krum", "rfa"), (1.5, 1.5, 3.0), 10, 2e-5, 1.05).said()
        'drop and krum are first (p < 0.0001), and significantly better than all others'
        """
        p = f"p = {self.p:.2g}" if self.p >= 1e-4 else "p < 0.0001"
        if not self.differ:
            return f"no significant difference ({p})"
        tied = sum(math.isclose(rank, self.ranks[0]) for rank in self.ranks)
        names = [(titles or {}).get(name, name) for name in self.as_good]
        best, others = names[:tied], names[tied:]
        if others and not self.tells:
            return (
                f"the ranks are not all equal ({p}), but too few blocks to tell any two apart: "
                f"Nemenyi's critical difference is {self.critical:.2f}, and the first and the last "
                f"are {self.ranks[-1] - self.ranks[0]:.2f} apart"
            )
        worse = [(titles or {}).get(name, name) for name in self.methods[len(names) :]]
        joined = " and ".join([*filter(None, [", ".join(best[:-1])]), best[-1]])
        first = f"{joined} {'is' if tied == 1 else 'are'} first ({p})"
        if not others:
            return f"{first}, and significantly better than all others"
        if worse and len(others) > MOST_NAMED:
            return f"{first}; significantly worse is only: {', '.join(worse)}"
        return f"{first}; not significantly worse: {', '.join(others)}"


def mean_ranks(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean rank (k,) of k methods in m blocks by scores (m, k), the lowest the best.

    Examples
    --------
    >>> mean_ranks(np.array([[0.1, 0.5, 0.5], [0.2, 0.1, 0.9]])).tolist()
    [1.5, 1.75, 2.75]
    """
    below = (scores[:, None, :] < scores[:, :, None]).sum(2)
    equal = (scores[:, None, :] == scores[:, :, None]).sum(2)
    return (below + (equal + 1) / 2).mean(0)


def friedman_chi(scores: NDArray[np.float64]) -> float:
    """Return Friedman's statistic of m blocks by k methods (m, k), with its correction for ties."""
    from scipy.stats import rankdata  # most of a second

    m, k = scores.shape
    ranks = rankdata(scores, axis=1)
    spread = ((ranks - (k + 1) / 2) ** 2).sum() / (k - 1) / m
    if spread <= 0:
        return 0.0
    return float(m * ((ranks.mean(0) - (k + 1) / 2) ** 2).sum() / spread)


def friedman_p(scores: NDArray[np.float64]) -> float:
    """Return the p that m blocks (m, k) rank k methods alike by chance, by Iman and Davenport.

    Ties are corrected for. With all scores tied it is 1. With all blocks of one mind F is infinite,
    and p is that of chance alone: the first block's order comes again m - 1 times, of as many
    orders as there are (k! without ties, k! / t! where t share a rank).
    """
    from scipy.stats import f

    m, k = scores.shape
    chi = friedman_chi(scores)
    if m * (k - 1) - chi <= 1e-9:
        tied = np.unique(scores[0], return_counts=True)[1]
        orders = math.factorial(k) / math.prod(math.factorial(int(t)) for t in tied)
        return orders ** (1 - m)
    return float(f.sf((m - 1) * chi / (m * (k - 1) - chi), k - 1, (k - 1) * (m - 1)))


def friedman_chi_p(scores: NDArray[np.float64]) -> float:
    """Return the same p by Friedman's chi-square distribution, as `scipy` has it."""
    from scipy.stats import chi2

    return float(chi2.sf(friedman_chi(scores), scores.shape[1] - 1))


def critical_difference(methods: int, blocks: int) -> float:
    """Return Nemenyi's critical difference of two mean ranks at 5 %.

    q sqrt(k (k + 1) / 6 m) with q the studentised range's quantile for k means over sqrt(2).

    Parameters
    ----------
    methods, blocks
        k and m.

    Examples
    --------
    >>> round(critical_difference(4, 14), 2)  # Demsar's example
    1.25
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - LEVEL, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * blocks))


def rank(scores: Mapping[Hashable, Mapping[str, float]]) -> Ranking | None:
    """Rank methods by their scores in blocks, the lowest the best.

    Of the methods that most blocks have as many count as make the largest whole table, methods by
    blocks; and of the blocks those that have every method that counts.

    Parameters
    ----------
    scores
        The score of each method, by block.

    Returns
    -------
    Ranking | None
        None with fewer than three methods or two blocks.
    """
    scores = {block: found for block, found in scores.items() if len(found) > 1}
    seen = Counter(name for found in scores.values() for name in found)
    whole = [_whole(scores, [name for name in seen if seen[name] >= n]) for n in {*seen.values()}]
    enough = [
        (methods, rows)
        for methods, rows in whole
        if len(methods) >= FEWEST_METHODS and len(rows) >= FEWEST_BLOCKS
    ]
    if not enough:
        return None
    methods, rows = max(enough, key=lambda each: (len(each[0]) * len(each[1]), len(each[1])))
    values = np.array(rows, dtype=np.float64)
    means = mean_ranks(values)
    order = sorted(range(len(methods)), key=lambda place: (means[place], methods[place]))
    return Ranking(
        tuple(methods[place] for place in order),
        tuple(float(means[place]) for place in order),
        len(rows),
        friedman_p(values),
        critical_difference(len(methods), len(rows)),
        tuple(sorted(seen.keys() - {*methods})),
        friedman_chi_p(values),
    )


def _whole(
    scores: Mapping[Hashable, Mapping[str, float]], methods: list[str]
) -> tuple[list[str], list[list[float]]]:
    """Return some methods, and their scores in the blocks that have all of them."""
    found = [each for each in scores.values() if each.keys() >= {*methods}]
    return methods, [[each[name] for name in methods] for each in found]
