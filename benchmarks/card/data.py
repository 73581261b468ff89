"""CIFAR-10 for the card: an image folder, or an archive of one, under the data set's own name."""

import tarfile
from dataclasses import replace
from pathlib import Path

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.cifar10 import CIFAR10
from entity.dataset.imagefolder import PREFIX, image_folder
from entity.seeding import Seeds

LARGEST = 2 << 30
"""Bytes that an archive may unpack to."""


def use_cifar10(where: Path, work: Path) -> str:
    """Make `cifar10` mean the images of a folder or archive; return what they are, in words.

    Parameters
    ----------
    where
        A folder with `train/<class>/*` and `test/<class>/*` (what a folder `valid` holds is
        trained on, too), or a tar archive of one.
    work
        Where an archive is unpacked and decoded, once.

    Raises
    ------
    ConfigError
        If there are no such images.
    """
    folder = where if where.is_dir() else _unpacked(where, work / "data")
    folder = _with_parts(folder.resolve())
    source = image_folder(PREFIX + str(folder), work, None, None)
    if source.class_names != CIFAR10.class_names or (source.channels, source.size) != (3, 32):
        raise ConfigError(
            f"{where}: holds {len(source.class_names)} classes of {source.channels}x{source.size}x"
            f"{source.size} images; CIFAR-10's are {', '.join(CIFAR10.class_names)}, 3x32x32."
        )
    # Whatever `settings.datasets_path` says: what is decoded once is kept beside the findings.
    DATASETS["cifar10"] = replace(
        CIFAR10, read=lambda root, seeds: source.read(work, seeds), files=None
    )
    source.read(work, Seeds(0))  # decoded now, so that no part's time goes into it
    return "CIFAR-10 from an image folder"


def _unpacked(archive: Path, target: Path) -> Path:
    if target.is_dir():
        return target
    partial = target.with_name(target.name + ".partial")
    try:
        with tarfile.open(archive) as tar:
            size = 0
            for member in tar:
                size += member.size
                if size > LARGEST:
                    raise ConfigError(f"{archive}: unpacks to more than {LARGEST >> 30} GiB.")
                tar.extract(member, partial, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise ConfigError(f"{archive}: is neither a folder nor an archive ({error}).") from error
    partial.rename(target)
    return target


def _with_parts(folder: Path) -> Path:
    """Return the folder itself or the one folder in it that has the parts."""
    for one in (folder, *sorted(folder.glob("*/"))):
        if (one / "train").is_dir() and (one / "test").is_dir():
            return one
    raise ConfigError(f"{folder}: has no train/<class>/* and test/<class>/*.")
