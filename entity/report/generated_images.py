"""The generator's images of a distillation as one sheet of tiles, a PNG inside the page."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from entity.report.artifacts import Images

BUDGET = 1_400_000
"""Bytes of PNG in one page, all runs together."""

MOST = (64, 48, 32, 16, 8, 4)
GAP = 1


@dataclass(frozen=True)
class Sheet:
    """A sheet of tiles, ready for an `img`."""

    round: int
    src: str
    shown: int
    made: int
    width: int
    height: int
    tile: str
    """Size and kind of one image, for the caption."""


def draw_sheets(found: Sequence[Images | None]) -> list[Sheet | None]:
    """Draw a sheet of each run's images, with as many tiles as the page's size allows."""
    sheets: list[Sheet | None] = []
    for most in MOST:
        sheets = [draw_sheet(images, most) if images else None for images in found]
        if sum(len(sheet.src) for sheet in sheets if sheet) <= BUDGET:
            return sheets
    return sheets


def draw_sheet(images: Images, most: int = MOST[0]) -> Sheet:
    """Draw the first `most` images in rows of eight at the most."""
    made, channels, height, width = images.pixels.shape
    colour = channels == 3
    tiles = images.pixels[:most] if colour else images.pixels[:most, :1]
    shown = len(tiles)
    columns = min(shown, max(4, math.ceil(math.sqrt(shown))))
    rows = math.ceil(shown / columns)
    size = (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP)
    pixels = np.zeros((*size, 4 if colour else 2), np.uint8)  # alpha 0 between the tiles
    for index, tile in enumerate(tiles):
        top, left = (height + GAP) * (index // columns), (width + GAP) * (index % columns)
        cell = pixels[top : top + height, left : left + width]
        cell[..., :-1] = np.moveaxis(tile, 0, -1)
        cell[..., -1] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels, "RGBA" if colour else "LA").save(buffer, "PNG")
    return Sheet(
        round=images.round,
        src="data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
        shown=shown,
        made=made,
        width=size[1],
        height=size[0],
        tile=f"{height} by {width} pixels, {'in colour' if colour else 'grey'}",
    )
