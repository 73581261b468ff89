"""Images that are being decoded, a batch at a time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from entity.dataset.images import Images

BATCH = 1000
"""Images that are decoded into memory at a time."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images on their way into a cache, a batch at a time."""

    shape: tuple[int, int, int, int]
    """(N, C, H, W)."""
    y: NDArray[np.int64]
    """(N,) classes."""
    batches: Callable[[], Iterable[Pixels]]
    """The N images in order, in pieces (n, C, H, W); every call begins anew."""

    @classmethod
    def of(cls, x: Pixels, y: NDArray[np.integer]) -> "Decoded":
        """Wrap images (N, C, H, W) that are in memory already."""
        n, channels, height, width = x.shape
        steps = range(0, n, BATCH)
        return cls(
            (n, channels, height, width),
            y.astype(np.int64),
            lambda: (np.ascontiguousarray(x[start : start + BATCH]) for start in steps),
        )

    def in_memory(self) -> Images:
        """Decode into memory."""
        x = np.empty(self.shape, dtype=np.uint8)
        start = 0
        for batch in self.batches():
            x[start : start + len(batch)] = batch
            start += len(batch)
        return Images(torch.from_numpy(x), torch.from_numpy(self.y))
