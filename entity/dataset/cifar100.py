"""CIFAR-100 with its 100 fine classes, in the folder that torchvision keeps its files in."""

from collections.abc import Sequence
from pathlib import Path

from entity.dataset.cifar10 import CIFAR10, read_batches
from entity.dataset.decoded import Decoded
from entity.dataset.files import Files, scan_files
from entity.dataset.source import Source

_NAMES = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly
camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup
dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower
leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange
orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit
raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel
streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip
turtle wardrobe whale willow_tree wolf woman worm
"""
CLASSES = tuple(_NAMES.split())


def download(root: Path) -> None:
    """Download to `root/cifar-100-python`."""
    from torchvision import datasets  # a second of every start, and only needed here

    datasets.CIFAR100(root, download=True)


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Read the training and the test images."""
    from torchvision import datasets

    return read_batches(datasets.CIFAR100, folder)


FILES = Files(
    key="cifar100",
    title="CIFAR-100",
    folders=("cifar-100-python",),
    scan=scan_files("train", "test", "meta"),
    decode=decode,
    remedy="unpack cifar-100-python.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html there",
    download=download,
)

CIFAR100 = Source(
    name="cifar100",
    summary="60,000 photographs of everyday things, 32x32 RGB, 100 classes",
    paper=CIFAR10.paper,
    num_classes=len(CLASSES),
    channels=3,
    size=32,
    held_out=1000,
    augmentation=CIFAR10.augmentation,
    class_names=CLASSES,
    read=FILES.read,
    files=FILES,
    counts=(50_000, 10_000),
)
