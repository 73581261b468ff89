"""MNIST from its four original files, in the folder that torchvision keeps them in."""

from functools import partial
from pathlib import Path

from entity.dataset import idx
from entity.dataset.augment import Augmentation
from entity.dataset.files import Files, scan_files
from entity.dataset.source import Source

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def download(root: Path) -> None:
    """Download to `root/MNIST/raw`."""
    from torchvision import datasets  # a second of every start, and only needed here

    datasets.MNIST(root, download=True)


FILES = Files(
    key="mnist",
    title="MNIST",
    folders=("MNIST/raw",),
    scan=scan_files(*NAMES, gzipped=True),
    decode=partial(idx.decode, classes=10),
    remedy=f"copy {', '.join(NAMES)} there, plain or as .gz, or choose the data set mnist5k, which "
    "needs no files",
    download=download,
)

MNIST = Source(
    name="mnist",
    summary="70,000 handwritten digits, 28x28 grey, 10 classes",
    paper="LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998",
    num_classes=10,
    channels=1,
    size=28,
    held_out=1000,
    # A digit's mirror image is no digit.
    augmentation=Augmentation(pad=2, flip=False, degrees=10),
    class_names=tuple("0123456789"),
    read=FILES.read,
    files=FILES,
    counts=(60_000, 10_000),
)
