"""What a defense's lines look like: one colour and one sign a defense, in every page and figure.

Readers tell the colours apart who do not see red, green or blue; as there are more defenses than
colours, each has a sign, too. Groups of a page that share a colour, as a
defense's runs under several attacks do, have different dashes. Where all runs have one defense, its
colour would tell nothing: the groups then go through the colours, beginning with its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

COLOURS = 8
"""`--run-1` to `--run-8` of the style sheet."""

SYMBOLS = ("circle", "square", "triangle-up", "triangle-down", "cross", "x", "pentagon", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

_BY_COLOUR: tuple[tuple[str, ...], ...] = (
    ("undefended", "finetuning", "rflbat", "snowball"),
    ("droplet", "krum", "flare", "alignins"),
    ("drop", "trimmed_mean", "freqfed"),
    ("drop_plus", "deepsight", "random_aggregation"),
    ("flame", "rfa", "crfl", "signguard"),
    ("multikrum", "norm_clipping", "flip", "dnc", "crowdguard"),
    ("median", "foolsgold", "bulyan", "centered_clipping"),
    ("fltrust", "rlr", "multi_metrics", "fldetector"),
)
"""Shipped defenses that share a colour are seldom compared with each other."""


@dataclass(frozen=True)
class Look:
    """Colour, sign and dash of lines."""

    colour: int = 0
    """From 0, of `COLOURS`."""
    symbol: str = SYMBOLS[0]
    dash: str = DASHES[0]
    """In plotly's words."""


KNOWN: dict[str, Look] = {
    name: Look(colour, SYMBOLS[(colour + 3 * place) % len(SYMBOLS)])
    for colour, names in enumerate(_BY_COLOUR)
    for place, name in enumerate(names)
}


def look_of(defense: str) -> Look:
    """Return colour and sign of a defense; those of one that is not listed follow from its name.

    Examples
    --------
    >>> look_of("drop").colour, look_of("mine") == look_of("mine")
    (2, True)
    """
    if defense in KNOWN:
        return KNOWN[defense]
    place = int.from_bytes(sha256(defense.encode(errors="backslashreplace")).digest()[:8])
    return Look(place % COLOURS, SYMBOLS[place // COLOURS % len(SYMBOLS)])


def looks(defenses: Sequence[str]) -> list[Look]:
    """Return the looks of a page's groups, of which no two are the same up to 48 of a colour.

    Parameters
    ----------
    defenses
        The defense of each group.

    Examples
    --------
    >>> [(each.colour, each.dash) for each in looks(["drop", "flame", "drop"])]
    [(2, 'solid'), (4, 'solid'), (2, 'dash')]
    >>> [each.colour for each in looks(["drop", "drop", "drop"])]
    [2, 3, 4]
    """
    found = [look_of(defense) for defense in defenses]
    if len(set(defenses)) == 1:
        first = SYMBOLS.index(found[0].symbol)
        found = [
            Look((look.colour + place) % COLOURS, SYMBOLS[(first + place) % len(SYMBOLS)])
            for place, look in enumerate(found)
        ]
    seen = Counter[int]()
    told: list[Look] = []
    for look in found:
        turn, dash = divmod(seen[look.colour], len(DASHES))
        symbol = SYMBOLS[(SYMBOLS.index(look.symbol) + turn) % len(SYMBOLS)]
        told.append(Look(look.colour, symbol, DASHES[dash]))
        seen[look.colour] += 1
    return told
