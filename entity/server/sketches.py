"""What the updates of a round are like, in the part that clean images show and in the other one.

Both parts (`visible.py`) of each client's update are taken layer by layer, less the round's mean
and scaled to length one, so that no layer outweighs the others, and are kept as short sketches
whose cosines are nearly those of the parts. Of what clean images show, what any mix of their
classes makes of an update (`mixes.py`) can be left out.

Lengths count, as who has one task more goes farther. Who has more samples goes farther, too; less
the mean its update points forward, and that of a client with few samples back. `amounts.py` takes
that out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

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
    """(n, n) inner products of the hidden parts, the mean not taken off, in a unit of the round."""
    squares: Tensor
    """(n,) squared lengths of both parts together, in the same unit."""


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
    scale = _power_of_two(updates)
    hidden, shown = _Sketch(n, HIDDEN), _Sketch(n, SHOWN)
    products, squares = torch.zeros(n, n).double(), torch.zeros(n).double()
    for view in of:
        generator = seeds.generator(f"sketch of {view.name}")
        part = view.of(updates)
        drawn = torch.randperm(part.shape[-2], generator=generator)[:ROWS]
        part = part[..., drawn, :].mul_(scale)
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
        laid = rows.new_zeros(len(rows), until + -until % entries)
        torch.mul(rows, signs, out=laid[:, self._end : until])
        self.sums += laid.unflatten(1, (-1, entries)).sum(1)
        self._end = until % entries


def unit(rows: Tensor) -> Tensor:
    """Return rows (n, D) at length one, of whatever finite length; those of zeros as they are."""
    near = rows * _power_of_two(rows, 1)
    return near.div_(near.norm(dim=1, keepdim=True).clamp_min(1e-30))


def _power_of_two(rows: Tensor, dim: int | None = None) -> Tensor:
    """Return what brings the largest entries of all rows, or of each, near to one.

    Squares and sums of single precision have no room for tiny and huge entries. What follows does
    not depend on the scale, and a power of two changes no digit.
    """
    low, high = rows.aminmax() if dim is None else rows.aminmax(dim=dim, keepdim=True)
    exponent = torch.frexp(torch.maximum(-low, high)).exponent.clamp(-126, 126)
    return torch.ldexp(torch.ones_like(high), -exponent)
