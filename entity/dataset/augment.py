"""Random crop, flip and rotation of whole batches.

The three are composed into one look-up of source pixels. Each is a nearest-neighbour map of
pixels onto pixels, so this gives what torchvision's crop, flip and rotate give one after the
other, without a loop over the samples.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from entity.devices import to_device


class Draws(NamedTuple):
    """By how much each sample of a batch is moved."""

    shift: Tensor
    """(N, 2) rows and columns."""
    flip: Tensor
    """(N,) bool."""
    angle: Tensor
    """(N,) degrees."""


@dataclass(frozen=True)
class Augmentation:
    """Crop with padding, then flip, then rotate; each sample has its own draw.

    Examples
    --------
    >>> batch = torch.zeros(5, 3, 32, 32, dtype=torch.uint8)
    >>> Augmentation(pad=4, flip=True, degrees=15)(batch, torch.Generator()).shape
    torch.Size([5, 3, 32, 32])
    """

    pad: int
    """Pixels padded on every side before the random crop back to the size."""
    flip: bool
    """Mirror left and right with probability one half."""
    degrees: float
    """Rotate uniformly between plus and minus this angle."""

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a batch (N, C, H, W) of pixels (uint8), or of normalised images (float).

        The generator may be on another device than the batch.
        """
        draws = self.draw(len(x), generator)
        return self.apply(x, Draws(*(to_device(part, x.device) for part in draws)))

    def draw(self, n: int, generator: torch.Generator) -> Draws:
        """Draw by how much the samples of a batch of n are moved, on the generator's device."""
        device = generator.device
        shift = torch.randint(-self.pad, self.pad + 1, (n, 2), generator=generator, device=device)
        flip = torch.rand(n, generator=generator, device=device) < (0.5 if self.flip else 0.0)
        angle = (torch.rand(n, generator=generator, device=device) * 2 - 1) * self.degrees
        return Draws(shift, flip, angle)

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """Augment a batch by what was drawn for it, which is on the batch's device."""
        return warp(x, *draws)


def warp(x: Tensor, shift: Tensor, flip: Tensor, angle: Tensor) -> Tensor:
    """Crop, flip and rotate each image by its own amounts; nearest neighbour, black outside.

    Parameters
    ----------
    x
        (N, C, H, W), uint8 pixels or floats in [-1, 1]; black is 0 or -1.
    shift
        (N, 2) rows and columns by which the crop's corner lies off the image's.
    flip
        (N,) bool, mirror left and right.
    angle
        (N,) degrees, counter-clockwise about the centre.
    """
    n, channels, height, width = x.shape
    middle, centre = (height - 1) / 2, (width - 1) / 2
    rows = torch.arange(height, device=x.device)[:, None] - middle
    cols = torch.arange(width, device=x.device) - centre
    radians = torch.deg2rad(angle).view(n, 1, 1)
    sin, cos = radians.sin(), radians.cos()
    # Where each pixel comes from, the last step undone first. Positions are whole numbers, which
    # floats hold exactly, in place: half the time of integers of eight bytes.
    row = (cos * rows + sin * cols).add_(middle).round_()
    col = (cos * cols - sin * rows).add_(centre).round_()
    outside = _beyond(row, middle).logical_or_(_beyond(col, centre))
    mirrored = flip.view(n, 1, 1).float()
    row.add_(shift[:, 0].view(n, 1, 1))
    col.mul_(1 - 2 * mirrored).add_(mirrored * (width - 1) + shift[:, 1].view(n, 1, 1))
    outside.logical_or_(_beyond(row, middle)).logical_or_(_beyond(col, centre))

    source = row.mul_(width).add_(col).masked_fill_(outside, 0).long().view(n, 1, height * width)
    moved = x.flatten(2).gather(2, source.expand(n, channels, -1)).view(x.shape)
    return moved.masked_fill_(outside[:, None], -1 if x.is_floating_point() else 0)


def _beyond(position: Tensor, middle: float) -> Tensor:
    """Return where positions lie outside of 0 to 2 * middle."""
    return (position - middle).abs_().gt(middle)
