"""FEMNIST, handwritten characters by writer, from the JSON files of LEAF.

Caldas et al., "LEAF: A Benchmark for Federated Settings", 2018, arXiv 1812.01097. LEAF's script
downloads NIST's forms, cuts them to 28x28 and writes `train/*.json` and `test/*.json`, each an
object of `users`, `num_samples` and `user_data`, with the lists `x` (784 numbers an image) and `y`
of every writer. Writers are the clients where `client.partition = natural`. With its `-t sample`
the test images are by the writers that are trained on, with `-t user` by others.

The files have dark ink on white paper. They are read as all other MNISTs here are, light on black:
a trigger of white pixels in a corner would be white on white. LEAF writes pixels as fractions, and
its README says whole numbers up to 255: files of either are read.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from entity.dataset.cache import Stamp
from entity.dataset.decoded import Decoded, Pixels
from entity.dataset.files import Files, damaged
from entity.dataset.source import Source
from entity.reading import parse_json, read_bytes

PARTS = ("train", "test")
CLASSES = tuple("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
"""Digits, capitals and small letters, in LEAF's order."""
SIDE = 28
MOST_BYTES = 1 << 31
"""Size of a file of LEAF's, of a hundred writers at most; those are of some 100 MB."""
AGAIN = "remove it, and have LEAF's preprocess.sh make it again"


def scan(folder: Path) -> list[Stamp] | None:
    """List the JSON files of both parts; None if one has none."""
    stamps: list[Stamp] = []
    for part in PARTS:
        files = sorted(file for file in (folder / part).glob("*.json") if file.is_file())
        if not files:
            return None
        for file in files:
            status = file.stat()
            stamps.append((f"{part}/{file.name}", status.st_size, status.st_mtime_ns))
    return stamps


def decode(folder: Path, names: Sequence[str]) -> tuple[Decoded, Decoded]:
    """Read the training images, those of a writer together, and the test images.

    Raises
    ------
    ConfigError
        If a file is not as LEAF writes it.
    """
    train, test = (
        _part(folder, [name for name in names if name.startswith(f"{part}/")]) for part in PARTS
    )
    return train, test


def _part(folder: Path, names: Sequence[str]) -> Decoded:
    x: dict[str, list[Pixels]] = {}
    y: dict[str, list[NDArray[np.int64]]] = {}
    for name in names:
        for writer, pixels, labels in _writers(folder / name):
            x.setdefault(writer, []).append(pixels)
            y.setdefault(writer, []).append(labels)
    writers = sorted(writer for writer in x if sum(map(len, y[writer])))
    if not writers:
        raise damaged(folder / names[0], "it has no image", AGAIN)
    images = np.concatenate([part for writer in writers for part in x[writer]])
    labels = np.concatenate([part for writer in writers for part in y[writer]])
    sizes = [sum(map(len, y[writer])) for writer in writers]
    return Decoded.of(images, labels, {"client_sizes": sizes})


def _writers(file: Path) -> Iterator[tuple[str, Pixels, NDArray[np.int64]]]:
    """Yield each writer of a file with the images (n, 1, 28, 28) and their classes (n,)."""
    try:
        found: Any = parse_json(read_bytes(file, MOST_BYTES))
        of_writer = found["user_data"]
        for writer in found["users"]:
            pixels = np.asarray(of_writer[writer]["x"], dtype=np.float64)
            labels = np.asarray(of_writer[writer]["y"])
            if pixels.size == labels.size == 0:
                continue
            yield str(writer), *_checked(pixels.reshape(len(labels) or 1, -1), labels)
    except (OSError, ValueError, KeyError, TypeError) as error:
        said = " ".join(str(error).split())[:100]
        raise damaged(file, f"it is not as LEAF writes it ({said})", AGAIN) from error


def _checked(pixels: NDArray[np.float64], labels: NDArray[Any]) -> tuple[Pixels, NDArray[np.int64]]:
    """Return images as bytes (n, 1, 28, 28), light on black, and their classes.

    Parameters
    ----------
    pixels
        (n, 784) fractions of white, or whole numbers up to 255.
    labels
        (n,) classes.

    Raises
    ------
    ValueError
        If they are none.
    """
    if pixels.shape[1] != SIDE**2:
        raise ValueError(f"{pixels.shape[1]} numbers an image instead of {SIDE**2}")
    least, most = float(pixels.min()), float(pixels.max())
    if not (math.isfinite(most) and least >= 0 and most <= 255):
        raise ValueError(f"pixels from {least:g} to {most:g}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise ValueError(f"a class that is not from 0 to {len(CLASSES) - 1}")
    whole = np.rint(pixels * 255 if most <= 1 else pixels)
    return (255 - whole).astype(np.uint8).reshape(-1, 1, SIDE, SIDE), labels.astype(np.int64)


FILES = Files(
    key="femnist",
    recipe="2",
    title="FEMNIST (LEAF's files)",
    folders=("femnist", "FEMNIST", "leaf/data/femnist/data"),
    scan=scan,
    decode=decode,
    remedy="make them with `./preprocess.sh -s niid --sf 0.05 -k 0 -t sample` in data/femnist of "
    "https://github.com/TalwalkarLab/leaf, which downloads NIST's forms (--sf 1.0 for all 3,550 "
    "writers), and copy its folders data/train and data/test there",
)

FEMNIST = Source(
    name="femnist",
    summary="up to 805,263 handwritten characters of 3,550 writers, 28x28 grey, 62 classes",
    paper="Caldas et al., LEAF: A Benchmark for Federated Settings, 2018, 1812.01097",
    num_classes=len(CLASSES),
    channels=1,
    size=SIDE,
    held_out=620,
    augmentation=None,  # as EMNIST, whose letters are not themselves in a mirror
    class_names=CLASSES,
    read=FILES.read,
    files=FILES,
    natural="writers",
)
