"""FashionMNIST from its four original files, in the folder that torchvision keeps them in."""

from functools import partial
from pathlib import Path

from entity.dataset import idx
from entity.dataset.augment import Augmentation
from entity.dataset.files import Files, scan_files
from entity.dataset.mnist import NAMES
from entity.dataset.source import Source


def download(root: Path) -> None:
    """Download to `root/FashionMNIST/raw`."""
    from torchvision import datasets  # a second of every start, and only needed here

    datasets.FashionMNIST(root, download=True)


FILES = Files(
    key="fashionmnist",
    title="FashionMNIST",
    folders=("FashionMNIST/raw",),
    scan=scan_files(*NAMES, gzipped=True),
    decode=partial(idx.decode, classes=10),
    remedy=f"copy {', '.join(NAMES)} of https://github.com/zalandoresearch/fashion-mnist there, "
    "plain or as .gz",
    download=download,
)

FASHIONMNIST = Source(
    name="fashionmnist",
    summary="70,000 pieces of clothing, 28x28 grey, 10 classes",
    paper="Xiao et al., Fashion-MNIST: a Novel Image Dataset, 2017, 1708.07747",
    num_classes=10,
    channels=1,
    size=28,
    held_out=1000,
    # Photographed upright and centred: mirrored they stay what they are, turned they do not occur.
    augmentation=Augmentation(pad=2, flip=True, degrees=0),
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    read=FILES.read,
    files=FILES,
    counts=(60_000, 10_000),
)
