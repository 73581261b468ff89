"""What the updates of a round are like, in the part that clean images show and in the other one.

Both parts (`visible.py`) of each client's update are taken layer by layer, less the round's mean
and scaled to length one, so that no layer outweighs the others, and are kept as short sketches
whose cosines are nearly those of the parts. Of what clean images show, what any mix of their
classes makes of an update (`mixes.py`) can be left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from entity.seeding import Seeds
from entity.server.mixes import without
from entity.server.visible import View

HIDDEN, SHOWN = 16_384, 8_192
"""Entries of a description of what clean images do not show, and of what they do: 96 kB in all."""

ROWS = 64
"""Outputs of a layer that are looked at: drawn at random, the same in all rounds."""


class Described(NamedTuple):
    """What the updates of a round are like."""

    hidden: Tensor
    """(n, HIDDEN) the parts that clean images do not show; rows of length one, or zero."""
    shown: Tensor
    """(n, SHOWN) the parts that they do and none of the given mixes accounts for, likewise."""
    products: Tensor
    """(n, n) inner products of the hidden parts, the mean not taken off."""
    squares: Tensor
    """(n,) squared lengths of both parts together."""


def descriptions(
    updates: Tensor, of: Sequence[View], seeds: Seeds, mixes: Tensor | None = None
) -> Described:
    """Return what the parts of updates are like.

    Parameters
    ----------
    updates
        (n, P) differences of weights.
    of
        The model's views.
    seeds
        Of the server: the outputs that are looked at and the signs of the sketches (after Charikar
        et al., "Finding Frequent Items in Data Streams", 2002) are the same in every round.
    mixes
        (k, P) gradients of classes, whose span is left out of what clean images show.
    """
    n = len(updates)
    hidden, shown = _Sketch(n, HIDDEN), _Sketch(n, SHOWN)
    products, squares = torch.zeros(n, n).double(), torch.zeros(n).double()
    for view in of:
        generator = seeds.generator(f"sketch of {view.name}")
        part = view.of(updates)
        drawn = torch.randperm(part.shape[-2], generator=generator)[:ROWS]
        part = part[..., drawn, :]
        seen = view.visible(part).flatten(1)
        part = part.flatten(1)
        unseen = part - seen
        products += (unseen @ unseen.T).double()
        squares += part.norm(dim=1).double().square()
        hidden.add(unit(unseen - unseen.mean(0)), generator)
        different = seen - seen.mean(0)
        if mixes is not None and len(mixes):
            different = without(different, view.of(mixes)[..., drawn, :].flatten(1))
        shown.add(unit(different), generator)
    return Described(unit(hidden.sums), unit(shown.sums), products, squares)


class _Sketch:
    """Rows that are laid end to end and folded to D entries, each with a sign drawn at random."""

    def __init__(self, n: int, entries: int) -> None:
        self.sums = torch.zeros(n, entries)
        self._end = 0

    def add(self, rows: Tensor, generator: torch.Generator) -> None:
        """Lay (n, length) after what is there."""
        length, entries = rows.shape[1], self.sums.shape[1]
        signs = torch.randint(2, (length,), generator=generator) * 2.0 - 1
        until = self._end + length
        laid = nn.functional.pad(rows * signs, (self._end, -until % entries))
        self.sums += laid.unflatten(1, (-1, entries)).sum(1)
        self._end = until % entries


def unit(rows: Tensor) -> Tensor:
    """Return rows (n, D) at length one, of whatever finite length; those of zeros as they are."""
    # Squares of single precision have no room for tiny and huge rows; a power of two has no digits.
    exponent = torch.frexp(rows.abs().amax(1, keepdim=True)).exponent.clamp(-126, 126)
    near = torch.ldexp(rows, -exponent)
    return near / near.norm(dim=1, keepdim=True).clamp_min(1e-30)
