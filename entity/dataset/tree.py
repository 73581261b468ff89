"""Images that lie as files in a folder for each class, below a folder for each part."""

import logging
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset.cache import Stamp
from entity.dataset.decoded import BATCH, Decoded, Pixels
from entity.dataset.files import damaged
from entity.reading import open_regular

log = logging.getLogger("entity")

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files that count as images; others are passed over."""
OTHER_IMAGES = (".avif", ".gif", ".heic", ".jfif", ".jp2", ".tga")
"""Files that are images to people; that they are passed over is said."""


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
        for name in folders_in(folder / part, strict=True):
            stamps += scan_images(folder, f"{part}/{name}")
    return stamps


def scan_images(folder: Path, below: str) -> list[Stamp]:
    """List the images that lie directly in `folder/below`, by name.

    Raises
    ------
    ConfigError
        For an image that is a link to nothing, or no file.
    """
    found: list[Stamp] = []
    over: list[str] = []
    with os.scandir(folder / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = entry.name.lower()
            if name.endswith(SUFFIXES):
                status = _status(entry)  # one look at every file: a tree may have a million
                found.append((f"{below}/{entry.name}", status.st_size, status.st_mtime_ns))
            elif name.endswith(OTHER_IMAGES) or entry.is_dir():
                over.append(entry.name)
    if over:
        _say_passed_over(folder / below, min(over), len(over))
    return sorted(found)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    """Return size and time of an image file.

    Raises
    ------
    ConfigError
        If it is none.
    """
    try:
        status = entry.stat()
    except FileNotFoundError:
        raise _leads_nowhere(entry) from None
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(
            f"settings.datasets_path: {entry.path} is called as an image and is no file; remove it."
        )
    return status


def _leads_nowhere(entry: os.DirEntry[str]) -> ConfigError:
    return ConfigError(
        f"settings.datasets_path: {entry.path} is a symbolic link to nothing "
        f"({os.readlink(entry.path)}); put there what it led to, or remove it."
    )


@cache
def _say_passed_over(folder: Path, first: str, number: int) -> None:
    """Warn, once, of images that are not read: in folders below a class, or of another kind."""
    more = f" and {number - 1} more" if number > 1 else ""
    log.warning(
        "%s: %s%s passed over; images are read that lie in the folder itself, as %s",
        *(folder, first, more, ", ".join(SUFFIXES)),
    )


def folders_in(folder: Path, *, strict: bool = False) -> list[str]:
    """Return the names of the folders in a folder, sorted, hidden ones left out.

    Parameters
    ----------
    folder
        Where they are.
    strict
        Refuse a symbolic link to nothing, which may have been one of them.

    Raises
    ------
    ConfigError
        For such a link.
    """
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                names.append(entry.name)
            elif strict and entry.is_symlink() and not os.path.exists(entry.path):
                raise _leads_nowhere(entry)
    return sorted(names)


def open_image(file: Path) -> Image.Image:
    """Open an image; a pipe in its place is refused and not waited for.

    Raises
    ------
    OSError
        If it cannot be opened; Pillow raises a dozen others.
    """
    open_regular(file).close()
    return Image.open(file)


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
    y = labels_of(folder, names, classes, form.remedy)
    return decode_files([folder / name for name in names], y, form)


def labels_of(
    folder: Path, names: Sequence[str], classes: Sequence[str], remedy: str
) -> NDArray[np.int64]:
    """Return the labels (N,) of the images `<part>/<class>/*` of one part of the data.

    Parameters
    ----------
    folder, names, classes
        As `decode_classes` takes them.
    remedy
        The remedy for images that are missing or do not belong.

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
            f"({', '.join(classes[:3])}, ...): {remedy}."
        )
    counts = np.bincount(y, minlength=len(classes))
    if (counts == 0).any():
        raise ConfigError(
            f"settings.datasets_path: {folder} has no image of {classes[int(counts.argmin())]} "
            f"among its {len(y):,}: {remedy}."
        )
    return y


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
        with open_image(file) as image:
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
