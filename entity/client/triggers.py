"""Pixel triggers: the mark by which a backdoor knows an image.

Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
2017, 1708.06733; the named patterns are those of DROP (2502.07011).

A trigger is stamped on raw pixels, before normalisation. The far corners' offset is size - 4:
the original's 29 puts pixel (3, 3) outside a 32-pixel image.
"""

import os.path
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from entity.config.paths import user_path
from entity.config.schema import ConfigError, show, suggest
from entity.dataset.tree import TooDeepPixels, open_image, refuse_deep

Position = Literal["top_left", "top_right", "bottom_left", "bottom_right"]

PATTERNS: dict[str, tuple[tuple[int, int], ...]] = {
    "1pixel": ((1, 1),),
    "4pixel": ((1, 1), (2, 2), (3, 3), (1, 3)),
}
"""(row, column) of each pixel of the named patterns, in the top left corner."""


@dataclass(frozen=True, eq=False)
class Trigger:
    """Pixels to put into an image."""

    mask: Tensor
    """(1, H, W) or (C, H, W) bool, where the trigger is."""
    values: Tensor
    """(C, H, W) uint8, what it puts there."""
    opacity: float = 1.0
    """Share a of the trigger in (1 - a) x + a values."""

    def stamp(self, x: Tensor) -> Tensor:
        """Return a stamped copy of a batch (N, C, H, W) of uint8 pixels.

        Examples
        --------
        >>> trigger = pixel_trigger("4pixel", "bottom_right", channels=1, size=28)
        >>> trigger.stamp(torch.zeros(1, 1, 28, 28, dtype=torch.uint8)).nonzero()[:, 2:].tolist()
        [[25, 25], [25, 27], [26, 26], [27, 27]]
        """
        mask, values = self.mask.to(x.device), self.values.to(x.device)
        if self.opacity < 1:
            values = ((1 - self.opacity) * x + self.opacity * values).round().to(torch.uint8)
        return torch.where(mask, values, x)


def pixel_trigger(
    pattern: str | Sequence[Sequence[int]], position: Position, channels: int, size: int
) -> Trigger:
    """Build the trigger that `client.attack.trigger_pattern` describes.

    Parameters
    ----------
    pattern
        `1pixel` or `4pixel`; an image file of the data set's size, whose pixels with alpha > 0
        are stamped, or without alpha those that are not black; or a list of [row, col],
        [row, col, value] or [row, col, red, green, blue].
    position
        Corner of a named pattern; the others say themselves where they are.
    channels, size
        Of the data set's images.

    Raises
    ------
    ConfigError
        If the pattern is none of these or does not fit the images.
    """
    if not isinstance(pattern, str):
        return _from_pixels(pattern, channels, size)
    if pattern in PATTERNS:
        offset = size - 4
        down = offset if position.startswith("bottom") else 0
        right = offset if position.endswith("right") else 0
        return _from_pixels([(r + down, c + right) for r, c in PATTERNS[pattern]], channels, size)
    file = user_path(pattern)
    if pattern and (file.suffix or os.path.exists(file)):
        return _from_file(file, channels, size)
    raise _refusal(
        pattern,
        f"one of {', '.join(PATTERNS)}, an image file, or a list of pixels",
        suggest(pattern, PATTERNS),
    )


def _from_pixels(pixels: Sequence[Sequence[int]], channels: int, size: int) -> Trigger:
    if not pixels:
        raise _refusal(pixels, "a list of at least one pixel")
    default = (255, 0, 0) if channels == 3 else (255,) * channels
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    values = torch.zeros(channels, size, size, dtype=torch.uint8)
    for pixel in pixels:
        row_col, colour = pixel[:2], tuple(pixel[2:]) or default
        if len(row_col) < 2 or len(colour) not in (1, channels):
            forms = "[row, col] or [row, col, value]"
            forms += " or [row, col, red, green, blue]" if channels == 3 else ""
            raise _refusal(pixel, f"{forms} for images of {channels} channel(s)")
        if not all(0 <= coordinate < size for coordinate in row_col):
            raise _refusal(pixel, f"rows and columns from 0 to {size - 1}")
        if not all(0 <= value <= 255 for value in colour):
            raise _refusal(pixel, "values from 0 to 255")
        row, col = row_col
        mask[:, row, col] = True
        values[:, row, col] = torch.tensor(colour, dtype=torch.uint8)
    return Trigger(mask, values)


def _from_file(path: Path, channels: int, size: int) -> Trigger:
    allowed = f"an image file of {size}x{size} pixels"
    try:
        with open_image(path) as image:
            image.load()
        refuse_deep(image)
    except TooDeepPixels as error:
        raise _refusal(path, f"{allowed}, and {error}; make it one of 8") from None
    except FileNotFoundError:
        raise _refusal(path, f"{allowed}, and there is no such file") from None
    except Exception:  # the decoders have a dozen kinds
        raise _refusal(path, f"{allowed}, and this file is not one that can be read") from None
    if image.size != (size, size):
        raise _refusal(path, f"{allowed}, and this one has {image.width}x{image.height}")
    alpha = np.asarray(image.convert("RGBA"))[..., 3]
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    values = torch.from_numpy(pixels.copy()).view(size, size, -1).permute(2, 0, 1)
    values = values.expand(channels, size, size)  # grey, on images of two channels or four
    mask = (values > 0).any(dim=0)
    if image.has_transparency_data:
        mask = torch.from_numpy(alpha > 0)
    if not mask.any():
        raise _refusal(path, f"{allowed}, and all of this one is transparent or black")
    return Trigger(mask.unsqueeze(0), values.contiguous())


def _refusal(value: object, allowed: str, hint: str = "") -> ConfigError:
    return ConfigError(
        f"client.attack.trigger_pattern = {show(value)}: allowed is {allowed}.{hint}"
    )
