"""Data sets that can be poisoned in place, for a plain PyTorch DataLoader.

    from entity.dataset import BackdoorableCINIC10
    cinic10 = BackdoorableCINIC10(root="data/cinic-10", split="train")
    cinic10.backdoor("4pixel", "top_left", 0.125, original_class=0, target_class=7)
    loader = DataLoader(cinic10, batch_size=64, shuffle=True)

The interface is that of the original DROP code; experiments do not go through it (they poison
whole batches of tensors, see `poisons/`), scripts written for the original do.

Where we leave the original, and why:

- `keep` draws its samples; the first ones of CINIC-10 are all airplanes;
- without `original_class` the target class is left alone: its images are not attacked;
- samples that are poisoned already are not poisoned again, so that `backdoor` may be called twice;
- `original_class` and the rest are checked before anything is changed.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from entity.client.poisoning import choose
from entity.client.triggers import Position, pixel_trigger
from entity.config.paths import user_path
from entity.dataset.cifar10 import CIFAR10
from entity.dataset.cinic10 import CINIC10
from entity.dataset.emnist import EMNIST
from entity.dataset.fashionmnist import FASHIONMNIST
from entity.dataset.gtsrb import GTSRB
from entity.dataset.images import Images, normalise
from entity.dataset.source import Source
from entity.seeding import Seeds

Transform = Callable[[Any], Any]
"""From a PIL image to what `__getitem__` returns."""


class Backdoorable(Dataset[tuple[Any, int]]):
    """A map-style data set of (image, label) that can be poisoned.

    Parameters
    ----------
    root
        The data folder, the data set's own folder inside it, or any folder that itself holds its
        files (for CINIC-10 the folders `train`, `valid` and `test`).
    split
        `train` or `test`. What a data set has as `valid` is part of `train`.
    transform
        Maps a clean PIL image to what is returned, as in torchvision; without one, images are
        float tensors (C, H, W) in [-1, 1]. A poisoned image is always returned so: augmented, its
        trigger would move.

    Attributes
    ----------
    data : Tensor
        (N, C, H, W) uint8.
    targets : Tensor
        (N,) int64.
    backdoored_sample_idxs : list of int
        Positions of the poisoned samples, increasing.

    Raises
    ------
    ConfigError
        If the data is not there.
    ValueError
        If another split is asked for.
    """

    source: ClassVar[Source]
    """The data set that is read."""
    folders: ClassVar[tuple[str, ...]] = ()
    """Names of its own folder inside the data folder."""

    def __init__(
        self,
        root: str | Path = "data",
        split: Literal["train", "test"] = "train",
        transform: Transform | None = None,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split = {split!r}: allowed are train (with valid) and test.")
        images = self._read(user_path(root))[split == "test"]
        self._hold(images, torch.zeros(len(images), dtype=torch.bool))
        self.transform = transform

    def _read(self, root: Path) -> tuple[Images, Images]:
        """Read the data from where it is: below the root, at it under its own name, or in it."""
        files, above = self.source.files, root.parent if root.name in self.folders else root
        if files is not None:
            inner = {str(Path(*Path(name).parts[1:])) for name in files.folders}
            itself = replace(files, folders=(".", *sorted(inner - {"."})))
            for some, place in ((files, root), (files, above), (itself, root)):
                if some.locate(place) is not None:
                    return some.read(place)
        return self.source.read(above, Seeds(0))

    def _hold(self, images: Images, poisoned: Tensor) -> None:
        self.data, self.targets, self._poisoned = images.x, images.y, poisoned

    @property
    def num_classes(self) -> int:
        """K."""
        return self.source.num_classes

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order."""
        return self.source.class_names

    @property
    def backdoored_sample_idxs(self) -> list[int]:
        """Positions of the poisoned samples, increasing."""
        return self._poisoned.nonzero().flatten().tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        x, y = self.data[index], int(self.targets[index])
        if self.transform is None or self._poisoned[index]:
            return normalise(x), y
        from PIL import Image

        pixels = x.permute(1, 2, 0).squeeze(-1) if len(x) == 1 else x.permute(1, 2, 0)
        return self.transform(Image.fromarray(np.ascontiguousarray(pixels.numpy()))), y

    def backdoor(
        self,
        backdoor_trigger: str,
        position: Position,
        percentage: float,
        original_class: int | None,
        target_class: int,
        seed: int = 0,
    ) -> None:
        """Stamp a trigger on a share of the samples and relabel them.

        Parameters
        ----------
        backdoor_trigger, position
            As `client.attack.trigger_pattern` and `trigger_position`.
        percentage
            Share q of the samples of `original_class`, from 0 to 1; ⌊q m⌋ of m are poisoned.
        original_class
            Victim class; None attacks all but the target class.
        target_class
            What they are labelled as.
        seed
            Of the draw.

        Raises
        ------
        ValueError
            If a value is out of range; nothing is changed then.
        """
        if not 0 <= percentage <= 1:
            raise ValueError(f"percentage = {percentage}: allowed is a share from 0 to 1.")
        for name, label in (("original_class", original_class), ("target_class", target_class)):
            if label is not None and not 0 <= label < self.num_classes:
                raise ValueError(f"{name} = {label}: allowed is 0 to {self.num_classes - 1}.")
        if original_class == target_class:
            raise ValueError(f"target_class = {target_class}: is the original class, too.")
        if position not in (corners := get_args(Position)):
            raise ValueError(f"position = {position}: allowed are {', '.join(corners)}.")
        trigger = pixel_trigger(backdoor_trigger, position, self.source.channels, self.source.size)
        clean = (~self._poisoned).nonzero().flatten()
        rng = torch.Generator().manual_seed(seed)
        rows = clean[choose(self.targets[clean], original_class, target_class, percentage, rng)]
        x, y, poisoned = self.data.clone(), self.targets.clone(), self._poisoned.clone()
        x[rows], y[rows], poisoned[rows] = trigger.stamp(x[rows]), target_class, True
        self._hold(Images(x, y), poisoned)

    def keep_classes(self, classes: Iterable[int]) -> None:
        """Keep the samples of some classes alone; labels stay as they are.

        Raises
        ------
        ValueError
            If there is no sample of one of them.
        """
        wanted = set(classes)
        missing = sorted(wanted - set(self.targets.unique().tolist()))
        if missing:
            raise ValueError(f"classes = {sorted(wanted)}: there is no sample of {missing}.")
        self._keep(torch.isin(self.targets, torch.tensor(sorted(wanted), dtype=torch.int64)))

    def keep(self, percentage: float, seed: int = 0) -> None:
        """Keep a share of the samples, ⌊q N⌋ drawn at random, in their order.

        Raises
        ------
        ValueError
            If the share is not from 0 to 1.
        """
        if not 0 <= percentage <= 1:
            raise ValueError(f"percentage = {percentage}: allowed is a share from 0 to 1.")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        mask = torch.zeros(len(self), dtype=torch.bool)
        mask[order[: int(percentage * len(self) + 1e-9)]] = True
        self._keep(mask)

    def reset_backdoor_data(self) -> None:
        """Remove the poisoned samples altogether."""
        self._keep(~self._poisoned)

    def add_new_backdoor_data(self, backdoor_x: Tensor, backdoor_y: Tensor) -> None:
        """Put poisoned samples before all others.

        Parameters
        ----------
        backdoor_x
            (M, C, H, W) bytes, or (M, H, W, C), as the original has them.
        backdoor_y
            (M,) their labels.

        Raises
        ------
        ValueError
            If they are not such; nothing is changed then.
        """
        x, y = torch.as_tensor(backdoor_x), torch.as_tensor(backdoor_y)
        shape = tuple(self.data.shape[1:])
        if x.shape[1:] == (*shape[1:], shape[0]):
            x = x.permute(0, 3, 1, 2)
        if tuple(x.shape[1:]) != shape or not torch.equal(x.to(torch.uint8).to(x), x):
            raise ValueError(
                f"backdoor_x: allowed are whole numbers from 0 to 255 of shape (M, "
                f"{', '.join(map(str, shape))}), not {x.dtype} of shape {tuple(x.shape)}."
            )
        x = x.to(torch.uint8)
        if y.is_floating_point() or y.shape != x.shape[:1]:
            raise ValueError(
                f"backdoor_y: allowed is a whole number for each of {len(x)} samples, not "
                f"{y.dtype} of shape {tuple(y.shape)}."
            )
        wrong = sorted({int(label) for label in y if not 0 <= label < self.num_classes})
        if wrong:
            raise ValueError(f"backdoor_y = {wrong}: allowed is 0 to {self.num_classes - 1}.")
        y = y.to(torch.int64)
        marks = torch.ones(len(y), dtype=torch.bool)
        self._hold(
            Images(torch.cat([x, self.data]), torch.cat([y, self.targets])),
            torch.cat([marks, self._poisoned]),
        )

    def shuffle(self, seed: int = 0) -> None:
        """Put the samples into a random order."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        self._keep(order)

    def _keep(self, index: Tensor) -> None:
        images = Images(self.data, self.targets).subset(index)
        self._hold(images, self._poisoned[index])


class BackdoorableCIFAR10(Backdoorable):
    """CIFAR-10."""

    source = CIFAR10
    folders = ("cifar-10-batches-py",)


class BackdoorableCINIC10(Backdoorable):
    """CINIC-10; the training images are those of its `train` and its `valid` folder."""

    source = CINIC10
    folders = ("cinic-10", "CINIC-10", "cinic10")


class BackdoorableEMNIST(Backdoorable):
    """EMNIST balanced."""

    source = EMNIST
    folders = ("EMNIST",)


class BackdoorableFashionMNIST(Backdoorable):
    """FashionMNIST."""

    source = FASHIONMNIST
    folders = ("FashionMNIST",)


class BackdoorableGTSRB(Backdoorable):
    """GTSRB."""

    source = GTSRB
    folders = ("gtsrb",)
