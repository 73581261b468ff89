"""Lines that lie on each other, told apart: signs in turns, and stripes of all their colours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

MOST = 12
"""Lines of a chart up to which it is done; more could not be told apart anyway."""

SIGNS = 5
"""Signs on each line."""

STRIPE = 9
"""Pixels of a stripe of one colour."""


@dataclass(frozen=True)
class Stretch:
    """Rounds over which some lines are one."""

    members: tuple[int, ...]
    """Places of the lines."""
    at: tuple[int, ...]
    heights: tuple[float, ...]
    """Their mean."""

    def dashes(self) -> list[str]:
        """Return the dash of each member, the lowest first, so that each shows an equal share.

        Drawn over one another along the same path, each leaves free what those below it need.

        Examples
        --------
        >>> Stretch((0, 3, 4), (1, 2), (0.0, 0.0)).dashes()
        ['solid', '18px,9px', '9px,18px']
        """
        count = len(self.members)
        upper = [f"{STRIPE * (count - k)}px,{STRIPE * k}px" for k in range(1, count)]
        return ["solid", *upper]


def stretches(lines: Sequence[Mapping[int, float]], near: float) -> list[Stretch]:
    """Find where lines lie on each other.

    Parameters
    ----------
    lines
        Height by round of each line.
    near
        Distance up to which heights count as one.

    Returns
    -------
    list of Stretch
        Of three rounds or more, or of all where there are fewer.

    Examples
    --------
    >>> flat = {1: 0.0, 2: 0.0, 3: 0.0}
    >>> [found] = stretches([flat, {1: 0.5, 2: 0.5, 3: 0.5}, flat], 0.01)
    >>> found.members, found.at
    ((0, 2), (1, 2, 3))
    """
    if not 1 < len(lines) <= MOST:
        return []
    rounds = sorted({at for line in lines for at in line})
    open_: dict[tuple[int, ...], list[int]] = {}
    found: list[tuple[tuple[int, ...], list[int]]] = []
    for at in rounds:
        here = _together({place: line[at] for place, line in enumerate(lines) if at in line}, near)
        found += [(members, open_.pop(members)) for members in list(open_) if members not in here]
        for members in here:
            open_.setdefault(members, []).append(at)
    found += open_.items()
    least = min(3, len(rounds))
    return [
        Stretch(
            members, tuple(at), tuple(fmean(lines[one][each] for one in members) for each in at)
        )
        for members, at in found
        if len(at) >= least
    ]


def _together(heights: Mapping[int, float], near: float) -> set[tuple[int, ...]]:
    """Return the sets of lines that are one at a round: none farther than `near` from its lowest.

    Of lines in a row, each a little above the next, the lowest ones make a set.
    """
    sets: list[list[int]] = []
    lowest = -math.inf
    for place in sorted(heights, key=lambda each: heights[each]):
        if heights[place] - lowest <= near:
            sets[-1].append(place)
        else:
            sets.append([place])
            lowest = heights[place]
    return {tuple(sorted(members)) for members in sets if len(members) > 1}


def signs(points: int, place: int, lines: int) -> list[int]:
    """Return the points of a line that bear its sign, so that no two lines have theirs at one.

    Parameters
    ----------
    points
        How many the line has.
    place
        Its own among the lines.
    lines
        How many there are.

    Examples
    --------
    >>> signs(60, 0, 3), signs(60, 1, 3)
    ([2, 14, 26, 38, 50], [6, 18, 30, 42, 54])
    """
    if points <= SIGNS:
        return list(range(points))
    gap = points / SIGNS
    first = gap * (place + 0.5) / max(lines, 1)
    return sorted({min(points - 1, int(first + gap * turn)) for turn in range(SIGNS)})
