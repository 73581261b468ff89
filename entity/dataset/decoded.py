"""Images, or other samples, that are being decoded, a batch at a time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entity.dataset.images import Images

BATCH = 1000
"""Images that are decoded into memory at a time."""

Pixels = NDArray[np.uint8]
Samples = NDArray[Any]
"""Pixels, or samples of float32 or int64."""


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images on their way into a cache, a batch at a time."""

    shape: tuple[int, ...]
    """(N, C, H, W), or (N, ...) of other samples."""
    y: NDArray[np.int64]
    """(N,) classes."""
    batches: Callable[[], Iterable[Samples]]
    """The N images in order, in pieces (n, C, H, W); every call begins anew."""
    dtype: str = "uint8"
    """What they are of: `uint8`, `float32` or `int64`."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What else the header of a cache of them says; of the training images."""

    @property
    def kind(self) -> str:
        """What they are called: `images`, or `samples`, which are of any shape."""
        return "images" if self.dtype == "uint8" else "samples"

    @classmethod
    def of(
        cls, x: Samples, y: NDArray[np.integer], facts: Mapping[str, Any] | None = None
    ) -> "Decoded":
        """Wrap samples (N, ...) that are in memory already.

        Parameters
        ----------
        x, y
            Samples and their classes.
        facts
            For the header of the cache.
        """
        steps = range(0, len(x), BATCH)
        return cls(
            x.shape,
            y.astype(np.int64),
            lambda: (np.ascontiguousarray(x[start : start + BATCH]) for start in steps),
            x.dtype.name,
            facts or {},
        )

    def in_memory(self) -> Images:
        """Decode into memory."""
        x = np.empty(self.shape, dtype=self.dtype)
        start = 0
        for batch in self.batches():
            x[start : start + len(batch)] = batch
            start += len(batch)
        return Images(torch.from_numpy(x), torch.from_numpy(self.y), facts=self.facts)
