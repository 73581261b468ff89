"""GTSRB, German traffic signs, from the PPM files in the folder that torchvision keeps them in.

Every image is stretched to 32x32 (bicubic), whole: the sign's box (ROI) in the CSV files is not
cut out, as in DROP's code. The split is DROP's too, which evens out the benchmark's 26,640
training and 12,630 test images: the last 3,360 test images are trained on, which makes 30,000
and 9,270. The test images are in random order, so both parts keep their mix of classes.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from entity.dataset.augment import Augmentation
from entity.dataset.cache import Stamp
from entity.dataset.decoded import Decoded
from entity.dataset.files import AGAIN, Files, damaged
from entity.dataset.source import Source
from entity.dataset.tree import Format, decode_files, folders_in, scan_images

TRAIN, TEST, TRUTH = "GTSRB/Training", "GTSRB/Final_Test/Images", "GT-final_test.csv"
MOVED, OF = 3_360, 12_630
"""How many of how many test images are trained on."""

CLASSES = (
    "Speed limit (20km/h)",
    "Speed limit (30km/h)",
    "Speed limit (50km/h)",
    "Speed limit (60km/h)",
    "Speed limit (70km/h)",
    "Speed limit (80km/h)",
    "End of speed limit (80km/h)",
    "Speed limit (100km/h)",
    "Speed limit (120km/h)",
    "No passing",
    "No passing for vehicles over 3.5 metric tons",
    "Right-of-way at the next intersection",
    "Priority road",
    "Yield",
    "Stop",
    "No vehicles",
    "Vehicles over 3.5 metric tons prohibited",
    "No entry",
    "General caution",
    "Dangerous curve to the left",
    "Dangerous curve to the right",
    "Double curve",
    "Bumpy road",
    "Slippery road",
    "Road narrows on the right",
    "Road work",
    "Traffic signals",
    "Pedestrians",
    "Children crossing",
    "Bicycles crossing",
    "Beware of ice/snow",
    "Wild animals crossing",
    "End of all speed and passing limits",
    "Turn right ahead",
    "Turn left ahead",
    "Ahead only",
    "Go straight or right",
    "Go straight or left",
    "Keep right",
    "Keep left",
    "Roundabout mandatory",
    "End of no passing",
    "End of no passing by vehicles over 3.5 metric tons",
)
FORMAT = Format(channels=3, size=32, resized=True, other_size="", remedy=AGAIN)


def scan(folder: Path) -> list[Stamp] | None:
    """List the images and the file that labels the test images; None if one is missing."""
    truth = folder / TRUTH
    if not ((folder / TRAIN).is_dir() and (folder / TEST).is_dir() and truth.is_file()):
        return None
    stamps: list[Stamp] = []
    for name in folders_in(folder / TRAIN, strict=True):
        stamps += scan_images(folder, f"{TRAIN}/{name}")
    status = truth.stat()
    return [*stamps, *scan_images(folder, TEST), (TRUTH, status.st_size, status.st_mtime_ns)]


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Open the images in DROP's split.

    Raises
    ------
    ConfigError
        If a label is missing or out of range.
    """
    tested = _truth(folder / TRUTH)
    trained = [
        (folder / name, _class(name.split("/")[-2], folder / name))
        for name in names
        if name.startswith(TRAIN)
    ]
    cut = len(tested) - len(tested) * MOVED // OF
    for part, images in (("training", trained), ("test", tested[:cut])):
        if not images:
            raise damaged(folder, f"it has no {part} images", AGAIN)
    return _open(trained + tested[cut:]), _open(tested[:cut])


def _open(images: Sequence[tuple[Path, int]]) -> Decoded:
    files, labels = zip(*images, strict=True)
    return decode_files(files, np.array(labels), FORMAT)


def _truth(file: Path) -> list[tuple[Path, int]]:
    """Read the test images and their classes, in the benchmark's order."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines, delimiter=";", skipinitialspace=True))
        return [
            (file.parent / TEST / row["Filename"], _class(row["ClassId"] or "", file))
            for row in rows
        ]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError) as error:
        raise damaged(file, "it is not a table with Filename and ClassId", AGAIN) from error


def _class(text: str, where: Path) -> int:
    if not (text.isdecimal() and len(text) <= 5 and int(text) < len(CLASSES)):
        raise damaged(where, f"{text[:20]!r} is no class from 0 to {len(CLASSES) - 1}", AGAIN)
    return int(text)


def download(root: Path) -> None:
    """Download to `root/gtsrb`."""
    from torchvision import datasets  # a second of every start, and only needed here

    for split in ("train", "test"):
        datasets.GTSRB(root, split=split, download=True)


FILES = Files(
    key="gtsrb",
    title="GTSRB",
    folders=("gtsrb",),
    scan=scan,
    decode=decode,
    remedy="unpack GTSRB-Training_fixed.zip, GTSRB_Final_Test_Images.zip and "
    "GTSRB_Final_Test_GT.zip of https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/published-archive.html"
    " there",
    download=download,
)

GTSRB = Source(
    name="gtsrb",
    summary="39,270 German traffic signs, stretched to 32x32 RGB, 43 classes",
    paper="Stallkamp et al., Man vs. Computer, Neural Networks 2012",
    num_classes=len(CLASSES),
    channels=3,
    size=32,
    held_out=1000,
    # A sign's mirror image may be another sign: keep left, keep right.
    augmentation=Augmentation(pad=4, flip=False, degrees=15),  # DROP's own
    class_names=CLASSES,
    read=FILES.read,
    files=FILES,
    counts=(30_000, 9_270),
)
