"""Images that lie as files in a folder for each class, below a folder for each part."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset.cache import Stamp
from entity.dataset.decoded import BATCH, Decoded, Pixels
from entity.dataset.files import damaged

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files that count as images; others are passed over."""


@dataclass(frozen=True)
class Format:
    """What image files are decoded to."""

    channels: int
    """1 for grey, 3 for RGB."""
    size: int
    """Height and width."""
    resized: bool
    """Stretch an image of another size (bicubic); otherwise it is refused."""
    other_size: str
    """The remedy that such a refusal names."""
    remedy: str
    """The remedy for an image that cannot be read."""
    grey: bool = False
    """With one channel, make images in colour grey; otherwise they are refused."""


def scan_tree(folder: Path, parts: Iterable[str]) -> list[Stamp] | None:
    """List the images `<part>/<class>/*` below a folder; None if a part is not there."""
    stamps: list[Stamp] = []
    for part in parts:
        if not (folder / part).is_dir():
            return None
        for name in folders_in(folder / part):
            stamps += scan_images(folder, f"{part}/{name}")
    return stamps


def scan_images(folder: Path, below: str) -> list[Stamp]:
    """List the images that lie directly in `folder/below`, by name."""
    with os.scandir(folder / below) as entries:
        found = [
            (f"{below}/{entry.name}", status.st_size, status.st_mtime_ns)
            for entry in entries
            if entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith(".")
            # One look at every file: a tree may have a million.
            for status in (entry.stat(),)
        ]
    return sorted(found)


def folders_in(folder: Path) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def decode_classes(
    folder: Path, names: Sequence[str], classes: Sequence[str], form: Format
) -> Decoded:
    """Decode the images `<part>/<class>/*` of one part of the data, labelled by their class.

    Parameters
    ----------
    folder
        The data set's folder.
    names
        Paths of the images below it, `<part>/<class>/*`.
    classes
        Names of the classes, in order.
    form
        What the images are decoded to.

    Raises
    ------
    ConfigError
        If some class has no image, or there is a class that does not belong.
    """
    label = {name: y for y, name in enumerate(classes)}
    y = np.array([label.get(name.split("/")[-2], -1) for name in names], dtype=np.int64)
    if (y < 0).any():
        stranger = folder / Path(names[int(y.argmin())]).parent
        raise ConfigError(
            f"settings.datasets_path: {stranger} is none of the {len(classes)} classes "
            f"({', '.join(classes[:3])}, ...): {form.remedy}."
        )
    counts = np.bincount(y, minlength=len(classes))
    if (counts == 0).any():
        raise ConfigError(
            f"settings.datasets_path: {folder} has no image of {classes[int(counts.argmin())]} "
            f"among its {len(y):,}: {form.remedy}."
        )
    return decode_files([folder / name for name in names], y, form)


def decode_files(files: Sequence[Path], y: NDArray[np.int64], form: Format) -> Decoded:
    """Decode image files with their labels (N,).

    32x32 images take 0.1 ms each; two threads are no faster, as most of that is Python.

    Parameters
    ----------
    files
        The image files.
    y
        (N,) int64, their classes.
    form
        What they are decoded to.
    """
    shape = (form.channels, form.size, form.size)

    def batches() -> Iterator[Pixels]:
        for start in range(0, len(files), BATCH):
            batch = np.empty((min(BATCH, len(files) - start), *shape), dtype=np.uint8)
            for row, file in enumerate(files[start : start + BATCH]):
                batch[row] = decode_image(file, form)
            yield batch

    return Decoded((len(files), *shape), y, batches)


def decode_image(file: Path, form: Format) -> Pixels:
    """Decode one image to (C, size, size).

    Raises
    ------
    ConfigError
        If it is damaged, or has another size or more colour than is wanted.
    """
    try:
        with Image.open(file) as image:
            image.load()
            refuse_deep(image)
            colour = channels_of(image) > form.channels and not form.grey
            pixels = image.convert("RGB" if form.channels == 3 else "L")
    except Exception as error:  # the decoders have a dozen kinds
        raise damaged(file, reason(error), form.remedy) from error
    if colour:
        raise ConfigError(
            f"settings.datasets_path: {file} is in colour, and others are not; set "
            "image_channels = 3 to keep it, or 1 to have all made grey."
        )
    wanted = (form.size, form.size)
    if pixels.size != wanted and not form.resized:
        raise ConfigError(
            f"settings.datasets_path: {file} has {pixels.width}x{pixels.height} pixels instead of "
            f"{form.size}x{form.size}: {form.other_size}."
        )
    if pixels.size != wanted:
        pixels = pixels.resize(wanted, Image.Resampling.BICUBIC)
    array = np.asarray(pixels)
    return array[np.newaxis] if form.channels == 1 else array.transpose(2, 0, 1)


def channels_of(image: Image.Image) -> int:
    """Return 1 for an image in shades of grey, 3 for one in colour."""
    return 1 if image.mode in ("1", "L", "LA", "La") else 3


class TooDeepPixels(ValueError):
    """An image has pixels of more than 8 bits."""

    def __init__(self) -> None:
        super().__init__("it has pixels of more than 8 bits")


def refuse_deep(image: Image.Image) -> None:
    """Refuse pixels of more than 8 bits, which Pillow would cut off at 255.

    Raises
    ------
    TooDeepPixels
        If they have more.
    """
    if image.mode.startswith(("I", "F")):
        raise TooDeepPixels


def reason(error: Exception) -> str:
    """Return why an image could not be read."""
    return " ".join(str(error).split()) or type(error).__name__
