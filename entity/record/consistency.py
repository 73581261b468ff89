"""Consistency: the worst ASR of the rounds in which training may end (DROP, arXiv 2502.07011).

A federation stops when its accuracy will do, in any round. So the attack must fail in every round
whose MTA is acceptable, and not only in the last ten.
"""

from collections.abc import Iterable
from dataclasses import dataclass

SHARE = 0.9
"""MTA is acceptable from this share of the run's final MTA on, unless a level is given."""


def level_in_words(mta_at_least: float | None) -> str:
    """Return the MTA that is acceptable, in words; None is `SHARE` of the run's last.

    Examples
    --------
    >>> level_in_words(None), level_in_words(0.855)
    ("90 % of the run's last", '85.5 %')
    """
    if mta_at_least is None:
        return f"{100 * SHARE:g} % of the run's last"
    return f"{100 * mta_at_least:.6g} %"


@dataclass(frozen=True)
class Consistency:
    """The evaluated rounds of acceptable MTA, and the worst of them."""

    mta_at_least: float
    """MTA that counts as acceptable."""
    rounds: int
    """Evaluated rounds that reach it."""
    worst_asr: float | None
    """Highest ASR of those; None where none was judged by a trigger."""
    worst_round: int | None
    """The first round that has it."""


def consistency(
    rounds: Iterable[tuple[int, float | None, float | None]], mta_at_least: float | None = None
) -> Consistency | None:
    """Return the worst ASR of the rounds with acceptable MTA; None if no round was evaluated.

    Parameters
    ----------
    rounds
        (number, MTA, ASR) of each round, in order; None where it was not evaluated.
    mta_at_least
        Acceptable MTA, from 0 to 1; None takes `SHARE` of the last MTA.

    Examples
    --------
    >>> consistency([(1, 0.30, 0.99), (2, 0.85, 0.40), (3, None, None), (4, 0.90, 0.02)])
    Consistency(mta_at_least=0.81, rounds=2, worst_asr=0.4, worst_round=2)
    """
    evaluated = [(number, mta, asr) for number, mta, asr in rounds if mta is not None]
    if not evaluated:
        return None
    level = SHARE * evaluated[-1][1] if mta_at_least is None else mta_at_least
    level = round(level, 12)
    # A share of a share is rounded: 0.9 * 0.9 is 0.81, and a bit more in binary.
    acceptable = [(number, asr) for number, mta, asr in evaluated if mta >= level - 1e-9]
    judged = [(asr, number) for number, asr in acceptable if asr is not None]
    if not judged:
        return Consistency(level, len(acceptable), None, None)
    worst, number = max(judged, key=lambda each: each[0])
    return Consistency(level, len(acceptable), worst, number)
