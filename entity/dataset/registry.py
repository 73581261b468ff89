"""All data sets by name, and how a name in a config becomes one."""

from pathlib import Path

from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError, show, suggest
from entity.dataset.arrays import PythonData
from entity.dataset.cifar10 import CIFAR10
from entity.dataset.cifar100 import CIFAR100
from entity.dataset.cinic10 import CINIC10
from entity.dataset.emnist import EMNIST
from entity.dataset.fashionmnist import FASHIONMNIST
from entity.dataset.femnist import FEMNIST
from entity.dataset.gtsrb import GTSRB
from entity.dataset.imagefolder import PREFIX, image_folder
from entity.dataset.mnist import MNIST
from entity.dataset.mnist5k import MNIST5K
from entity.dataset.source import Source
from entity.dataset.svhn import SVHN
from entity.dataset.tiny_imagenet import TINY_IMAGENET

DATASETS: dict[str, Source] = {
    source.name: source
    for source in (
        MNIST5K,
        MNIST,
        FASHIONMNIST,
        EMNIST,
        FEMNIST,
        CIFAR10,
        CIFAR100,
        CINIC10,
        GTSRB,
        SVHN,
        TINY_IMAGENET,
    )
}


OWN_DATASETS: dict[str, PythonData] = {}
"""Data sets of plugins, by name."""


def find(name: str, root: Path, size: int | None = None, channels: int | None = None) -> Source:
    """Return a data set by its name in a config.

    Parameters
    ----------
    name
        One of `DATASETS` or `OWN_DATASETS`, or `imagefolder:` and a folder.
    root
        The data folder, which such a folder is looked for in.
    size, channels
        `image_size` and `image_channels`, None takes the image folder's own.

    Raises
    ------
    ConfigError
        If there is no such data set, or its images have another size or other channels.
    """
    if name.startswith(PREFIX):
        return image_folder(name, root, size, channels)
    if name not in DATASETS and name not in OWN_DATASETS:
        known = [*DATASETS, *OWN_DATASETS, f"{PREFIX}NAME"]
        hint = suggest(name, known) or f" Allowed: {', '.join(known)}."
        raise ConfigError(f"dataset = {show(name)} is unknown.{hint}")
    source = DATASETS[name] if name in DATASETS else OWN_DATASETS[name].source(root)
    for field, asked, own in (
        ("image_size", size, source.size),
        ("image_channels", channels, source.channels),
    ):
        if asked not in (None, own):
            raise ConfigError(
                f"{field} = {asked}: allowed is {own} or null, as dataset = {name} has "
                f"samples of {source.form}; other sizes are for {PREFIX}NAME."
            )
    return source


def source_of(config: ExperimentConfig) -> Source:
    """Return the data set of an experiment.

    Raises
    ------
    ConfigError
        As `find` does.
    """
    root = user_path(config.settings.datasets_path)
    return find(config.dataset, root, config.image_size, config.image_channels)
