"""The tensors that a run left for the report: generated images and a linkage of clients."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from scipy.cluster.hierarchy import is_valid_linkage

from entity.reading import open_regular

MOST_TREES = 60
"""Rounds of a run that a page offers to look at."""


@dataclass(frozen=True)
class Images:
    """Images (k, C, H, W) uint8 that the generator made in a round."""

    round: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Tree:
    """A linkage (n-1, 4) of the n `clients` that were selected in a round."""

    round: int
    linkage: NDArray[np.float64]
    clients: tuple[str, ...]


def last_images(folder: Path) -> Images | None:
    """Find the images of the last distillation."""
    for index, pixels in _newest_first(folder, "generated"):
        if pixels.ndim == 4 and pixels.size and pixels.dtype == np.uint8:
            return Images(index, pixels.astype(np.uint8, copy=False))
    return None


def all_trees(folder: Path, selected: Mapping[int, Sequence[str]]) -> tuple[Tree, ...]:
    """Find the linkages whose leaves are the clients selected in that round, first round first.

    Of very many it takes some that lie evenly, the last among them.
    """
    found: list[Tree] = []
    for index, linkage in _newest_first(folder, "linkage", MOST_TREES):
        clients = tuple(selected.get(index, ()))
        if linkage.shape == (len(clients) - 1, 4) and len(clients) > 1:
            rows = linkage.astype(np.float64)
            if is_valid_linkage(rows):
                found.append(Tree(index, rows, clients))
    return tuple(reversed(found))


def _newest_first(
    folder: Path, tensor: str, most: int | None = None
) -> Iterator[tuple[int, NDArray[np.generic]]]:
    """Read one tensor from `round_0010.safetensors` and the like, last round first."""
    numbered = [
        (int(digits), file)
        for file in folder.glob("round_*.safetensors")
        if (digits := file.stem.removeprefix("round_")).isdecimal()
    ]
    numbered.sort(reverse=True)
    step = math.ceil(len(numbered) / most) if most and numbered else 1
    for index, file in numbered[::step]:
        try:
            open_regular(file).close()
            with safe_open(file, framework="numpy") as tensors:
                if tensor in tensors.keys():  # noqa: SIM118  (no `in` on the handle itself)
                    yield index, tensors.get_tensor(tensor)
        except (SafetensorError, OSError):  # a crash cut it off while it was written
            continue
