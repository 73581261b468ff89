"""Which training samples each client holds, and the apportioning and drawing of samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Shares:
    """Which training samples each client holds: a sequence of N index tensors, in two tensors.

    Examples
    --------
    >>> shares = Shares.of_owners(np.array([1, 0, 1, 1]), clients=2)
    >>> len(shares), shares[1], shares.sizes
    (2, tensor([0, 2, 3]), tensor([1, 3]))
    """

    index: Tensor
    """int64, the samples of client 0, then those of client 1, and so on."""
    offsets: Tensor
    """(N + 1,) int64, where each client's samples begin and end."""

    @classmethod
    def of_owners(cls, owner: Ints, clients: int) -> "Shares":
        """Build from the client that owns each sample; each client's samples are in order."""
        ends = np.bincount(owner, minlength=clients).cumsum()
        return cls(
            torch.from_numpy(np.argsort(owner, kind="stable")),
            torch.from_numpy(np.concatenate(([0], ends))),
        )

    @classmethod
    def of_parts(cls, parts: Sequence[Tensor]) -> "Shares":
        """Build from the samples of each client, in the order that they have; of one or more.

        Examples
        --------
        >>> Shares.of_parts([torch.tensor([5, 3]), torch.tensor([4])])[0]
        tensor([5, 3])
        """
        sizes = torch.tensor([0, *map(len, parts)])
        return cls(torch.cat(list(parts)), sizes.cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, client: int) -> Tensor:
        if not 0 <= client < len(self):
            raise IndexError(f"client {client} of {len(self)}")
        return self.index[int(self.offsets[client]) : int(self.offsets[client + 1])]

    def among(self, used: Tensor) -> "Shares":
        """Return the same shares, whose samples are positions in `used`, as those in `used`."""
        return Shares(used[self.index], self.offsets)

    @property
    def sizes(self) -> Tensor:
        """(N,) samples of each client."""
        return self.offsets.diff()

    def share_memory(self) -> "Shares":
        """Move both tensors into shared memory."""
        self.index.share_memory_()
        self.offsets.share_memory_()
        return self


def apportion(weights: NDArray[np.number], total: int) -> Ints:
    """Round `total` x weights / sum(weights) to whole numbers that add up to `total`.

    Largest remainder; of equal remainders, the first.

    Examples
    --------
    >>> apportion(np.array([0.5, 0.25, 0.25]), 5)
    array([3, 1, 1])
    """
    exact = weights / weights.sum() * total
    counts = np.floor(exact).astype(np.int64)
    by_remainder = np.argsort(counts - exact, kind="stable")
    counts[by_remainder[: total - int(counts.sum())]] += 1
    return counts


def draw_per_class(labels: Tensor, counts: Ints, generator: np.random.Generator) -> Tensor:
    """Draw `counts[c]` positions of each class c without replacement; return them in order.

    Parameters
    ----------
    labels
        (N,) int64, the class of each sample.
    counts
        (C,), how many to draw of each class.
    generator
        Where they are drawn from.

    Examples
    --------
    >>> y = torch.tensor([0, 0, 1, 1, 1])
    >>> y[draw_per_class(y, np.array([1, 2]), np.random.default_rng(0))]
    tensor([0, 1, 1])
    """
    y = labels.numpy()
    drawn = [
        generator.choice(np.flatnonzero(y == c), count, replace=False)
        for c, count in enumerate(counts)
    ]
    return torch.from_numpy(np.sort(np.concatenate(drawn)))
