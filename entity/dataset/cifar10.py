"""CIFAR-10 from its original Python batches, in the folder that torchvision keeps them in.

The batches are pickles: a file is opened only if its checksum is that of the published one.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from entity.dataset.augment import Augmentation
from entity.dataset.decoded import Decoded
from entity.dataset.files import AGAIN, Files, damaged, scan_files
from entity.dataset.source import Source


def download(root: Path) -> None:
    """Download to `root/cifar-10-batches-py`."""
    from torchvision import datasets  # a second of every start, and only needed here

    datasets.CIFAR10(root, download=True)


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Read the batches of training and of test images."""
    from torchvision import datasets

    return read_batches(datasets.CIFAR10, folder)


def read_batches(of: Any, folder: Path) -> tuple[Decoded, Decoded]:
    """Read a CIFAR with the torchvision class that knows its files and their checksums.

    Raises
    ------
    ConfigError
        If a file is not the published one.
    """
    from torchvision.datasets import cifar

    files = [*of.train_list, *of.test_list, (of.meta["filename"], of.meta["md5"])]
    for name, md5 in files:
        if not cifar.check_integrity(str(folder / name), md5):
            raise damaged(folder / name, "its checksum is not that of the published file", AGAIN)
    place = Path(os.path.abspath(folder))
    here: Any = type(of.__name__, (of,), {"base_folder": place.name})  # whatever it is called
    train, test = (here(place.parent, train=train) for train in (True, False))
    return _decoded(train), _decoded(test)


def _decoded(batches: Any) -> Decoded:
    return Decoded.of(batches.data.transpose(0, 3, 1, 2), np.array(batches.targets))


FILES = Files(
    key="cifar10",
    title="CIFAR-10",
    folders=("cifar-10-batches-py",),
    scan=scan_files(*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"),
    decode=decode,
    remedy="unpack cifar-10-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there",
    download=download,
)

CIFAR10 = Source(
    name="cifar10",
    summary="60,000 photographs of animals and vehicles, 32x32 RGB, 10 classes",
    paper="Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
    num_classes=10,
    channels=3,
    size=32,
    held_out=1000,
    augmentation=Augmentation(pad=4, flip=True, degrees=15),  # DROP's own
    class_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    read=FILES.read,
    files=FILES,
    counts=(50_000, 10_000),
)
