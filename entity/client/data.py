"""A client's data during its training: whole tensors, with poisoned rows marked."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from entity.dataset import Augmentation, Draws, channels_last, normalise
from entity.devices import to_device
from entity.training import shuffled

AHEAD = 1024
"""Images that are gathered and augmented at once on an accelerator, whose steps are so short that
the dozens of small operations before each would be felt."""


@dataclass(frozen=True)
class LocalData:
    """The images of one client.

    They are gathered from the shared data set for a round and released after it, so memory does
    not grow with the federation.
    """

    x: Tensor
    """(N, C, H, W) uint8; other samples as they are."""
    y: Tensor
    """(N,) labels."""
    poisoned: Tensor
    """(N,) bool, on the CPU, where the order of the samples is drawn."""

    def __len__(self) -> int:
        return len(self.y)

    def to(self, device: torch.device) -> "LocalData":
        """Move the pixels, as bytes, and the labels to a device; batches are gathered there."""
        return replace(self, x=to_device(self.x, device), y=to_device(self.y, device))

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

        All draws are made on the CPU, batch after batch, so they are the same on every device.

        Parameters
        ----------
        batch_size, epochs
            Images in a batch; passes over the data.
        generator
            Draws the order, and the augmentation.
        augmentation
            Applied to clean samples only, with new draws for every batch.
        in_every_batch
            Give every batch the poisoned share of the data, at least one sample, cycling through
            those that are poisoned, instead of leaving it to the shuffle. A batch is as large as
            the data where these are fewer than `batch_size`; a last one that is short of clean
            samples has as many poisoned ones as the others.
        """
        order = (
            self._mixed(batch_size, epochs, generator)
            if in_every_batch and bool(self.poisoned.any()) and not bool(self.poisoned.all())
            else shuffled(len(self), batch_size, epochs, generator)
        )
        ready = None if augmentation else channels_last(normalise(self.x))
        for batches in _together(order, augmentation, generator, self._ahead):
            picked = torch.cat([batch.picked for batch in batches])
            rows = to_device(picked, self.x.device)
            if ready is not None:
                x = ready[rows]
            else:
                assert augmentation is not None
                x = self._augmented(picked, rows, augmentation, batches)
            sizes = [len(batch.picked) for batch in batches]
            yield from zip(x.split(sizes), self.y[rows].split(sizes), strict=True)

    @property
    def _ahead(self) -> int:
        return 1 if self.x.device.type == "cpu" else AHEAD

    def _augmented(
        self,
        picked: Tensor,
        rows: Tensor,
        augmentation: Augmentation,
        batches: "Sequence[_Batch]",
    ) -> Tensor:
        """Return images, augmented but for the poisoned ones, in [-1, 1].

        Parameters
        ----------
        picked, rows
            Which, on the CPU and on the device of the images.
        augmentation
            What to do with them.
        batches
            Those that they make up, with their draws.
        """
        device = self.x.device
        drawn = [batch.draws for batch in batches if batch.draws is not None]
        draws = Draws(*(to_device(torch.cat(part), device) for part in zip(*drawn, strict=True)))
        keep = to_device(self.poisoned[picked], device)[:, None, None, None]
        x = self.x[rows]
        augmented = augmentation.apply(x, draws)
        return channels_last(normalise(torch.where(keep, x, augmented)))

    def _mixed(self, batch_size: int, epochs: int, generator: torch.Generator) -> Iterator[Tensor]:
        bad, good = self.poisoned.nonzero().flatten(), (~self.poisoned).nonzero().flatten()
        size = min(batch_size, len(self))
        share = max(1, round(size * len(bad) / len(self)))
        taken = 0
        for clean in shuffled(len(good), max(1, size - share), epochs, generator):
            if taken % len(bad) < share:
                bad = bad[torch.randperm(len(bad), generator=generator)]
            turn = (taken + torch.arange(share)) % len(bad)
            taken += share
            yield torch.cat([good[clean], bad[turn]])


class _Batch(NamedTuple):
    picked: Tensor
    """(b,) rows of the data, on the CPU."""
    draws: Draws | None
    """How they are augmented, if they are."""


def _together(
    order: Iterable[Tensor],
    augmentation: Augmentation | None,
    generator: torch.Generator,
    images: int,
) -> Iterator[list[_Batch]]:
    """Yield the batches in lists of at least so many images, and draw their augmentation."""
    waiting: list[_Batch] = []
    for picked in order:
        draws = augmentation.draw(len(picked), generator) if augmentation else None
        waiting.append(_Batch(picked, draws))
        if sum(len(batch.picked) for batch in waiting) >= images:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
