"""CINIC-10 from its class folders of PNG files; its `valid` part belongs to the training data.

So does DROP's code, which is the second split that the paper proposes.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from entity.dataset.cache import Stamp
from entity.dataset.cifar10 import CIFAR10
from entity.dataset.decoded import Decoded
from entity.dataset.files import Files, fetch_archive
from entity.dataset.source import Source
from entity.dataset.tree import Format, decode_classes, scan_tree

URL = "https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz"
MD5 = "6ee4d0c996905fe93221de577967a372"
PARTS = ("train", "valid", "test")

FORMAT = Format(
    channels=3,
    size=32,
    resized=False,
    other_size="unpack CINIC-10.tar.gz anew, or name the folder as imagefolder:NAME",
    remedy="unpack CINIC-10.tar.gz anew, or name the folder as imagefolder:NAME",
)


def scan(folder: Path) -> list[Stamp] | None:
    """List the images; None if a part is missing."""
    return scan_tree(folder, PARTS)


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Open the images of train and valid, and those of test.

    Raises
    ------
    ConfigError
        If some class is missing.
    """
    test = [name for name in names if name.startswith("test/")]
    train = [name for name in names if not name.startswith("test/")]
    one = partial(decode_classes, folder, classes=CIFAR10.class_names, form=FORMAT)
    return one(train), one(test)


def download(root: Path) -> None:
    """Download 690 MB and unpack them to `root/cinic-10`."""
    fetch_archive(URL, MD5, root / FILES.folders[0], holds="train")


FILES = Files(
    key="cinic10",
    title="CINIC-10",
    folders=("cinic-10", "CINIC-10", "cinic10"),
    scan=scan,
    decode=decode,
    remedy="get it with `drop data fetch cinic10`, or in the data folder with `mkdir cinic-10 && "
    f"cd cinic-10 && wget {URL} && tar -xzf CINIC-10.tar.gz`",
    fetch=download,
)

CINIC10 = Source(
    name="cinic10",
    summary="270,000 photographs of animals and vehicles, 32x32 RGB, 10 classes",
    paper="Darlow et al., CINIC-10 Is Not ImageNet or CIFAR-10, 2018, 1810.03505",
    num_classes=CIFAR10.num_classes,
    channels=3,
    size=32,
    held_out=1000,
    augmentation=CIFAR10.augmentation,
    class_names=CIFAR10.class_names,
    read=FILES.read,
    files=FILES,
    counts=(180_000, 90_000),
)
