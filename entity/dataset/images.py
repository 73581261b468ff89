"""Labelled images as two tensors, and the one scale that networks see them in.

Samples that are no images, of a data set of one's own, are tensors of any shape: floats, or the
whole numbers of tokens. Networks see them as they are.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """Labelled images.

    Examples
    --------
    >>> images = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([4, 2, 4]))
    >>> len(images.subset(images.y == 4))
    2
    """

    x: Tensor
    """(N, C, H, W) uint8; other samples (N, ...) float32 or int64."""
    y: Tensor
    """(N,) int64, classes from 0."""
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any], kw_only=True)
    """What else is known of all of them, such as whose they are (`client_sizes`)."""

    def __len__(self) -> int:
        return len(self.y)

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image, or the shape of another sample."""
        return tuple(self.x.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        """What a sample is of."""
        return self.x.dtype

    def subset(self, index: Tensor) -> "Images":
        """Copy out the images at some positions, or where a mask of length N is true."""
        return Images(self.x[index], self.y[index])

    def select(self, rows: Tensor) -> "Selection":
        """Point at the images at some positions (n,) without copying them."""
        return Selection(self, rows, self.y[rows])

    def sha256(self) -> str:
        """Return the hash of the pixels, N C H W bytes in order."""
        digest = hashlib.sha256()
        for rows in self.x.split(1000):
            digest.update(rows.contiguous().numpy().data)
        return digest.hexdigest()

    def known_sha256(self) -> str:
        """Return the same, without reading the pixels where it has been noted."""
        return self.sha256()

    def share_memory(self) -> "Images":
        """Move both tensors into shared memory, so that worker processes map and not copy them."""
        self.x.share_memory_()
        self.y.share_memory_()
        return self


@dataclass(frozen=True, eq=False)
class Selection:
    """Some images of a larger set, which stay where they are.

    The clients share out all training images but the server's few: as a copy, that would be the
    whole data set once more.

    Examples
    --------
    >>> images = Images(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([4, 2, 4]))
    >>> images.select(torch.tensor([2, 1])).subset(torch.tensor([1])).y
    tensor([2])
    """

    images: Images
    """The larger set."""
    rows: Tensor
    """(n,) int64, positions in it."""
    y: Tensor
    """(n,) int64, the classes of these."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def x(self) -> Tensor:
        """(n, C, H, W) uint8, a copy; `subset` copies only what is asked for."""
        return self.images.x[self.rows]

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W) of every image, or the shape of another sample."""
        return self.images.shape

    @property
    def dtype(self) -> torch.dtype:
        """What a sample is of."""
        return self.images.dtype

    def subset(self, index: Tensor) -> Images:
        """Copy out the images at some positions, or where a mask of length n is true."""
        return Images(self.images.x[self.rows[index]], self.y[index])

    def share_memory(self) -> "Selection":
        """Move everything into shared memory that is not there yet."""
        self.images.share_memory()
        self.rows.share_memory_()
        self.y.share_memory_()
        return self


def normalise(x: Tensor) -> Tensor:
    """Scale pixels to [-1, 1], the range of the generators' tanh; leave other samples as they are.

    Examples
    --------
    >>> normalise(torch.tensor([0, 255], dtype=torch.uint8)), normalise(torch.tensor([7.5]))
    (tensor([-1.,  1.]), tensor([7.5000]))
    """
    return x.float() / 127.5 - 1 if x.dtype == torch.uint8 else x


def channels_last(x: Tensor) -> Tensor:
    """Return images in the memory format that convolutions are faster in; others as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x.contiguous()


def to_pixels(x: Tensor) -> Tensor:
    """Undo `normalise`: the nearest uint8 pixels, what is outside [-1, 1] clamped.

    Examples
    --------
    >>> to_pixels(torch.tensor([-1.2, 0.002, 1.0]))
    tensor([  0, 128, 255], dtype=torch.uint8)
    """
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
