"""A client's data during its training: whole tensors, with poisoned rows marked."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from entity.dataset import Augmentation, normalise
from entity.training import shuffled


@dataclass(frozen=True)
class LocalData:
    """The images of one client.

    They are gathered from the shared data set for a round and released after it, so memory does
    not grow with the federation.
    """

    x: Tensor
    """(N, C, H, W) uint8."""
    y: Tensor
    """(N,) labels."""
    poisoned: Tensor
    """(N,) bool, on the CPU, where the order of the samples is drawn."""

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> "LocalData":
        """Move the pixels, as bytes, and the labels to a device; batches are gathered there."""
        return replace(self, x=self.x.to(device), y=self.y.to(device))

    def batches(
        self,
        batch_size: int,
        epochs: int,
        generator: torch.Generator,
        *,
        augmentation: Augmentation | None = None,
        in_every_batch: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield shuffled batches: images in [-1, 1], channels_last, and labels.

        Parameters
        ----------
        batch_size, epochs
            Images in a batch; passes over the data.
        generator
            Draws the order, and the augmentation.
        augmentation
            Applied to clean samples only, with new draws for every batch.
        in_every_batch
            Give every batch its share of the poisoned samples, at least one, cycling through
            them, instead of leaving it to the shuffle.
        """
        order = (
            self._mixed(batch_size, epochs, generator)
            if in_every_batch and bool(self.poisoned.any()) and not bool(self.poisoned.all())
            else shuffled(len(self), batch_size, epochs, generator)
        )
        ready = None if augmentation else _channels_last(normalise(self.x))
        device = self.x.device
        for picked in order:
            rows = picked.to(device)
            if ready is not None:
                yield ready[rows], self.y[rows]
                continue
            assert augmentation is not None
            x = self.x[rows]
            augmented = augmentation(x, generator)
            keep = self.poisoned[picked].to(device)[:, None, None, None]
            yield _channels_last(normalise(torch.where(keep, x, augmented))), self.y[rows]

    def _mixed(self, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
        bad, good = self.poisoned.nonzero().flatten(), (~self.poisoned).nonzero().flatten()
        share = max(1, round(batch_size * len(bad) / len(self)))
        taken = 0
        for clean in shuffled(len(good), max(1, batch_size - share), epochs, generator):
            if taken % len(bad) < share:
                bad = bad[torch.randperm(len(bad), generator=generator)]
            turn = (taken + torch.arange(share)) % len(bad)
            taken += share
            yield torch.cat([good[clean], bad[turn]])


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
