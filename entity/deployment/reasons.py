"""Reasons of refusal as a few kinds that can be counted.

A reason is written for a reader: it has numbers, names of arrays and the words of a node's own
error in it. As the label of a metric it would make a new series for each, and let a node choose its
name. So what is said of malformed replies becomes one of the kinds below, and what a defense says
is taken without its numbers.
"""

import re
from collections.abc import Iterable

NO_REPLY, ERROR, MALFORMED = "no reply", "error reply", "malformed reply"
NONFINITE, SAMPLES, REPEATED = "nonfinite update", "sample count", "repeated or unasked reply"
OTHER = "other"

_KINDS = {
    r"no reply in time": NO_REPLY,
    r"error reply: ": ERROR,
    r"nonfinite update": NONFINITE,
    r"num-examples is |number of samples is ": SAMPLES,
    r"was not asked |repeated ": REPEATED,
    r"empty reply|missing array |unexpected array |array |arrays |record of arrays ": MALFORMED,
}

OF_THE_SERVER = frozenset(_KINDS.values())
"""Kinds of what is refused before a defense sees it."""

MOST = 24
"""Kinds that a defense's own reasons may come to; more are counted as `other`."""

_LONGEST = 80


def kind_of(reason: str) -> str:
    """Return the kind of a reason.

    Examples
    --------
    >>> kind_of('array "head.bias" has shape (4,) instead of (3,)'), kind_of("1.5 penalty points")
    ('malformed reply', 'penalty points')
    >>> kind_of("error reply: x=1"), kind_of("not among the 3 lowest scores")
    ('error reply', 'not among the lowest scores')
    """
    for pattern, kind in _KINDS.items():
        if re.match(pattern, reason):
            return kind
    plain = re.sub(r"(?<![\w.])[-+]?\d[\d.,]*(?:e[-+]?\d+)?%?", "", reason)
    return re.sub(r"\s+", " ", plain).strip(" :,;")[:_LONGEST] or OTHER


def counted(kinds: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return kinds, with `other` for what would be more than `MOST` kinds beside those known."""
    names = set(known)
    found: list[str] = []
    for kind in kinds:
        if kind not in names and kind not in OF_THE_SERVER and len(names - OF_THE_SERVER) >= MOST:
            kind = OTHER
        names.add(kind)
        found.append(kind)
    return found
