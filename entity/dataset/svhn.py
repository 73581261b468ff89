"""SVHN, house numbers cropped to single digits, from its two MATLAB files.

The file's label 10 is the digit 0, and class 0 here. The `extra` images are not used.
"""

from collections.abc import Sequence
from pathlib import Path

from entity.dataset.augment import Augmentation
from entity.dataset.decoded import Decoded
from entity.dataset.files import AGAIN, Files, damaged, scan_files
from entity.dataset.source import Source

NAMES = ("train_32x32.mat", "test_32x32.mat")


def download(root: Path) -> None:
    """Download to `root/svhn`."""
    from torchvision import datasets  # a second of every start, and only needed here

    for split in ("train", "test"):
        datasets.SVHN(root / FILES.folders[0], split=split, download=True)


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Read the training and the test images.

    Raises
    ------
    ConfigError
        If a file is not the published one.
    """
    train, test = (_read(folder, split) for split in ("train", "test"))
    return train, test


def _read(folder: Path, split: str) -> Decoded:
    from torchvision import datasets

    try:
        digits = datasets.SVHN(folder, split=split)
    except RuntimeError:  # torchvision's answer to a file that is not the published one
        path = folder / f"{split}_32x32.mat"
        raise damaged(path, "its checksum is not that of the published file", AGAIN) from None
    return Decoded.of(digits.data, digits.labels)


FILES = Files(
    key="svhn",
    title="SVHN",
    folders=("svhn", "SVHN", "."),  # torchvision takes any folder
    scan=scan_files(*NAMES),
    decode=decode,
    remedy=f"copy {' and '.join(NAMES)} of http://ufldl.stanford.edu/housenumbers there",
    download=download,
)

SVHN = Source(
    name="svhn",
    summary="99,289 digits of house numbers, 32x32 RGB, 10 classes",
    paper="Netzer et al., Reading Digits in Natural Images, NIPS workshop 2011",
    num_classes=10,
    channels=3,
    size=32,
    held_out=1000,
    # A digit's mirror image is no digit.
    augmentation=Augmentation(pad=4, flip=False, degrees=15),
    class_names=tuple("0123456789"),
    read=FILES.read,
    files=FILES,
    counts=(73_257, 26_032),
)
