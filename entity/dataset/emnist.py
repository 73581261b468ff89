"""EMNIST balanced, in the folder that torchvision keeps its files in.

The files hold every image with rows and columns swapped. They are swapped back here, so that
letters stand upright; DROP's code trains on them as they lie in the files.
"""

from functools import partial
from pathlib import Path

from entity.dataset import idx
from entity.dataset.files import Files, scan_files
from entity.dataset.source import Source

NAMES = (
    "emnist-balanced-train-images-idx3-ubyte",
    "emnist-balanced-train-labels-idx1-ubyte",
    "emnist-balanced-test-images-idx3-ubyte",
    "emnist-balanced-test-labels-idx1-ubyte",
)
CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt")
"""Digits, capitals, and the small letters that do not look like their capitals."""


def download(root: Path) -> None:
    """Download to `root/EMNIST/raw`."""
    from torchvision import datasets  # a second of every start, and only needed here

    datasets.EMNIST(root, split="balanced", download=True)


FILES = Files(
    key="emnist",
    title="EMNIST",
    folders=("EMNIST/raw",),
    scan=scan_files(*NAMES, gzipped=True),
    decode=partial(idx.decode, classes=len(CLASSES), transposed=True),
    remedy="unpack the four files emnist-balanced-* there, plain or as .gz, from "
    "https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",
    download=download,
)

EMNIST = Source(
    name="emnist",
    summary="131,600 handwritten digits and letters, 28x28 grey, 47 classes (balanced split)",
    paper="Cohen et al., EMNIST: an extension of MNIST to handwritten letters, 2017, 1702.05373",
    num_classes=len(CLASSES),
    channels=1,
    size=28,
    held_out=1200,  # DROP's own
    augmentation=None,  # DROP's own
    class_names=CLASSES,
    read=FILES.read,
    files=FILES,
    counts=(112_800, 18_800),
)
