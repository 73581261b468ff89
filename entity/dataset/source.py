"""What a data set is, and how an experiment gets its three disjoint parts from it."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from entity.config.schema import ConfigError
from entity.dataset.augment import Augmentation
from entity.dataset.files import Files
from entity.dataset.images import Images, Selection
from entity.dataset.shares import apportion, draw_per_class
from entity.seeding import Seeds

log = logging.getLogger("entity")


@dataclass(frozen=True)
class Source:
    """A data set."""

    name: str
    """Its name in a config."""
    summary: str
    """One line for `drop list datasets`."""
    paper: str
    """Where it was published."""
    num_classes: int
    """Number of classes K."""
    channels: int
    """1 for grey, 3 for RGB."""
    size: int
    """Height and width in pixels."""
    held_out: int
    """Clean samples that the server holds unless `server.held_out` says otherwise."""
    augmentation: Augmentation | None
    """What local training does to clean batches; None leaves them."""
    class_names: tuple[str, ...]
    """Names of the classes, in order."""
    read: Callable[[Path, Seeds], tuple[Images, Images]]
    """Read the training and the test images, given the data folder."""
    files: Files | None = None
    """The files that `read` reads; None if it needs none."""
    counts: tuple[int, int] | None = None
    """Training and test images of the published set."""
    natural: str = ""
    """Whose the training images are, in words (`writers`), where the files say it: the clients of
    `client.partition = natural`."""
    shape: tuple[int, ...] | None = None
    """Of a sample, where it is no square image of bytes; `channels` and `size` are then the first
    and the last number of it."""

    @property
    def sample(self) -> tuple[int, ...]:
        """Shape of a sample."""
        return self.shape or (self.channels, self.size, self.size)

    @property
    def form(self) -> str:
        """The same in words: `3x32x32`."""
        return "x".join(map(str, self.sample))

    def named(self, label: int) -> str:
        """Return a class as its number and, where that is another, its name: `7 (horse)`."""
        name = self.class_names[label]
        return f"{label}" if name == f"{label}" else f"{label} ({name})"


@dataclass(frozen=True, eq=False)
class Split:
    """The disjoint parts of a data set."""

    train: Selection
    """What the clients share out."""
    server: Images
    """The server's clean samples, class-balanced."""
    test: Images
    """What only the metrics see."""
    owners: Tensor | None = None
    """(n,) int64, whose each training sample is, where the data set says it."""

    def digest(self) -> str:
        """Return a hash of all images and labels and of which part they belong to.

        It copies nothing, and reads no pixels that come from a cache.
        """
        digest = hashlib.sha256()
        for part in (self.train.images, self.server, self.test):
            digest.update(f"{tuple(part.x.shape)} {part.known_sha256()}".encode())
            digest.update(part.y.numpy().data)
        digest.update(self.train.rows.numpy().data)
        if self.owners is not None:
            digest.update(self.owners.numpy().data)
        return digest.hexdigest()


def load(source: Source, root: Path, seeds: Seeds, held_out: int | None = None) -> Split:
    """Read a data set and take the server's clean samples out of the training images.

    The same seed takes the same samples, whatever the attack and the defense.

    Parameters
    ----------
    source
        The data set.
    root
        The data folder, `settings.datasets_path`.
    seeds
        Of the experiment.
    held_out
        Number of the server's samples, as equal a number from every class as it can be; None
        takes the data set's own.

    Raises
    ------
    ConfigError
        If the data is not there, or if some class could not give its part and keep a sample for
        the clients.
    """
    train, test = source.read(root, seeds)
    if source.counts and source.counts != (len(train), len(test)):
        log.warning("%s", differs(source, (len(train), len(test))))
    count = source.held_out if held_out is None else held_out
    sizes = torch.bincount(train.y, minlength=source.num_classes)
    rarest = int(sizes.min())
    most = source.num_classes * max(rarest - 1, 0)
    if not 0 <= count <= most:
        raise ConfigError(
            f"server.held_out = {count}: allowed is a whole number from 0 to {most}, as the "
            f"rarest class of {source.name}, {source.named(int(sizes.argmin()))}, has {rarest} "
            "training samples and the clients need one of them."
        )
    per_class = apportion(np.ones(source.num_classes), count)
    server = draw_per_class(train.y, per_class, seeds.numpy("held-out"))
    rest = torch.ones(len(train), dtype=torch.bool)
    rest[server] = False
    clients = rest.nonzero().flatten()
    owners = owners_of(train)
    return Split(
        train.select(clients),
        train.subset(server),
        test,
        None if owners is None else owners[clients],
    )


def owners_of(train: Images) -> Tensor | None:
    """Return whose each training image is (N,), or None where its data set does not say it.

    Images of one owner lie together, and `client_sizes` of their facts says how many each has.
    """
    sizes = train.facts.get("client_sizes")
    if sizes is None:
        return None
    return torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))


def differs(source: Source, found: tuple[int, int]) -> str:
    """Say that a data set has not the numbers of training and test images it was published with."""
    here, published = (f"{train:,}+{test:,}" for train, test in (found, source.counts or found))
    return f"{source.name}: {here} training and test images; the published set has {published}"
