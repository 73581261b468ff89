"""Anyone's own images: `train/<class>/*` and `test/<class>/*`, in a data set `imagefolder:NAME`.

Classes are in the order of their names, whole numbers in that of the numbers: 2 before 10.

What a folder `valid` or `val` holds is trained on, too. Size and colour are those of the first
image unless they are set. Then all images are stretched to the size (bicubic) and made grey or
RGB; otherwise an image that differs is an error.
"""

import hashlib
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from entity.config.paths import user_path
from entity.config.schema import ConfigError, show, suggest
from entity.dataset.augment import Augmentation
from entity.dataset.cache import Stamp
from entity.dataset.decoded import Decoded
from entity.dataset.files import Files
from entity.dataset.source import Source
from entity.dataset.tree import (
    SUFFIXES,
    Format,
    channels_of,
    decode_classes,
    folders_in,
    labels_of,
    open_image,
    reason,
    refuse_deep,
    scan_images,
    scan_tree,
)

PREFIX = "imagefolder:"
HELD_OUT_PER_CLASS = 10
"""The server's clean samples of each class unless `server.held_out` says otherwise."""
REMEDY = "replace or remove it"
SUMMARY = "your own images, train/<class>/* and test/<class>/* below the folder NAME"


def image_folder(name: str, root: Path, size: int | None, channels: int | None) -> Source:
    """Return the data set `imagefolder:NAME_OR_PATH`.

    Parameters
    ----------
    name
        The whole of it.
    root
        The data folder, which a relative path begins at.
    size, channels
        `image_size` and `image_channels`; None takes those of the first image.

    Raises
    ------
    ConfigError
        If the folder, or something that it must hold, is missing.
    """
    where = name.removeprefix(PREFIX)
    try:
        folder = root / user_path(where)
        parts = _parts(name, folder, root)
        classes = sorted(folders_in(folder / "train", strict=True), key=_as_a_number)
        first = next((f for c in classes for f in scan_images(folder, f"train/{c}")), None)
    except (OSError, RuntimeError) as error:  # a forbidden folder, a name too long, ~nobody
        raise ConfigError(f"dataset = {show(name)}: cannot be read ({reason(error)}).") from error
    if len(classes) < 2 or first is None:
        raise ConfigError(
            f"dataset = {show(name)}: {folder / 'train'} has {len(classes)} folders; it needs one "
            f"for each of at least two classes, with images ({', '.join(SUFFIXES)})."
        )
    form = _form(folder / first[0], size, channels)
    files = Files(
        key=_key(_place(folder, root), form),
        title=where,
        folders=(str(user_path(where)),),
        scan=partial(_scan, parts=parts, classes=classes),
        decode=partial(_decode, classes=classes, form=form),
        remedy="copy the images there",
        recipe=_recipe(form, classes),
        beside=None if _is_below(folder, root) else folder.parent,
    )
    rgb = form.channels == 3
    return Source(
        name=name,
        summary=SUMMARY,
        paper="",
        num_classes=len(classes),
        channels=form.channels,
        size=form.size,
        held_out=HELD_OUT_PER_CLASS * len(classes),
        augmentation=Augmentation(pad=form.size // 8, flip=rgb, degrees=15),
        class_names=tuple(classes),
        read=files.read,
        files=files,
    )


def image_folders(root: Path) -> list[str]:
    """Return the names of the folders in a data folder that look like image folders."""
    if not root.is_dir():
        return []
    return [
        name
        for name in folders_in(root)
        if all((root / name / part).is_dir() for part in ("train", "test"))
    ]


def _parts(name: str, folder: Path, root: Path) -> list[str]:
    """Return which of train, valid, val and test there are."""
    if name == PREFIX or not folder.is_dir():
        known = image_folders(root)
        hint = suggest(name.removeprefix(PREFIX), known)
        raise ConfigError(
            f"dataset = {show(name)}: there is no folder {folder} with train/<class>/* and "
            f"test/<class>/*.{hint or (f' In {root}: ' + ', '.join(known) + '.' if known else '')}"
        )
    parts = [p for p in ("train", "valid", "val", "test") if (folder / p).is_dir()]
    for part in ("train", "test"):
        if part not in parts:
            raise ConfigError(
                f"dataset = {show(name)}: {folder} has no folder {part}; it needs "
                "train/<class>/* and test/<class>/*."
            )
    return parts


def _form(first: Path, size: int | None, channels: int | None) -> Format:
    """Return what the images are decoded to, given the first of them."""
    if size is None or channels is None:
        own_size, own_channels = _look(first, size, channels)
    else:
        own_size, own_channels = size, channels
    return Format(
        own_channels,
        own_size,
        resized=size is not None,
        grey=channels == 1,
        other_size="set image_size to have all images stretched to it",
        remedy=REMEDY,
    )


def _look(first: Path, size: int | None, channels: int | None) -> tuple[int, int]:
    """Return size and channels of an image, where they are not set."""
    try:
        with open_image(first) as image:
            refuse_deep(image)
            width, height, colour = image.width, image.height, channels_of(image)
    except Exception as error:  # the decoders have a dozen kinds
        raise ConfigError(
            f"settings.datasets_path: {first} is damaged, {reason(error)}: {REMEDY}."
        ) from error
    if size is None and width != height:
        raise ConfigError(
            f"image_size = null: {first} has {width}x{height} pixels, and networks here take "
            "squares; set image_size to have all images stretched to it."
        )
    return size or height, channels or colour


def _scan(folder: Path, parts: Sequence[str], classes: Sequence[str]) -> list[Stamp] | None:
    """List the images; refuse classes that are not those of the images.

    An empty folder is a class, and changes no file: a cache would be found whose labels are other
    classes' numbers.
    """
    stamps = scan_tree(folder, parts)
    if stamps is not None:
        for names in _apart([path for path, _, _ in stamps]):
            labels_of(folder, names, classes, REMEDY)
    return stamps


def _decode(
    folder: Path, names: Sequence[str], classes: Sequence[str], form: Format
) -> tuple[Decoded, Decoded]:
    train, test = _apart(names)
    one = partial(decode_classes, folder, classes=classes, form=form)
    return one(train), one(test)


def _apart(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths of the training and of the test images."""
    test = [name for name in names if name.startswith("test/")]
    return [name for name in names if not name.startswith("test/")], test


def _as_a_number(name: str) -> tuple[bool, int, str]:
    """Sort whole numbers as numbers, before other names.

    Examples
    --------
    >>> sorted(["10", "b", "9", "a"], key=_as_a_number)
    ['9', '10', 'a', 'b']
    """
    number = int(name) if name.isascii() and name.isdecimal() else None
    return number is None, number or 0, name


def _recipe(form: Format, classes: Sequence[str]) -> str:
    """Say how a folder is decoded, for its cache: another order of the classes is another."""
    order = "" if list(classes) == sorted(classes) else " numbers"
    return f"1 {form.channels} {form.size} {form.resized} {form.grey}{order}"


def _is_below(folder: Path, root: Path) -> bool:
    return folder.resolve().is_relative_to(root.resolve())


def _place(folder: Path, root: Path) -> str:
    """Return where a folder is: two of one name, or links that moved, share no cache."""
    own = folder.resolve()
    return str(own.relative_to(root.resolve()) if _is_below(folder, root) else own)


def _key(where: str, form: Format) -> str:
    """Name the caches of a folder, so that another size has another one."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", Path(where).name)[:40]
    unique = hashlib.sha256(where.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"imagefolder-{plain}-{unique}-{form.channels}x{form.size}"
