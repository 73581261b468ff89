"""A data set that a Python function makes: images of bytes, or tensors of any shape.

    def spirals():
        return Arrays(train=(x, y), test=(x2, y2), class_names=("left", "right"))

The function of a plugin is called once; what it returns is cached and mapped like any data set, and
made anew when the plugin's code changes, or a file that it declares by `reads` (or by `drop data
verify`). Bytes (N, C, H, W) are images. Floats, and whole numbers such as tokens, are handed to the
model as they are.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from entity.config.schema import ConfigError, show
from entity.dataset import cache
from entity.dataset.augment import Augmentation
from entity.dataset.cache import Stamp
from entity.dataset.cache_folder import Parts, header_of
from entity.dataset.decoded import Decoded
from entity.dataset.files import Files
from entity.dataset.reads import stamps_of
from entity.dataset.source import Source
from entity.returned import place, said

HELD_OUT_PER_CLASS = 10
"""The server's clean samples of each class unless the function or `server.held_out` says."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """What the function of a data set returns.

    Arrays of NumPy, tensors, or nested lists. Samples are (N, ...), labels (N,) whole numbers.
    """

    train: tuple[Any, Any]
    """Samples and labels to train on."""
    test: tuple[Any, Any]
    """Samples and labels for the metrics alone."""
    class_names: Sequence[str]
    """Names of the classes, in the order of their numbers."""
    held_out: int | None = None
    """Training samples that the server holds, unless `server.held_out` says otherwise; None takes
    ten of each class."""
    augmentation: Augmentation | None = None
    """What local training does to clean batches of square images; None leaves them."""


@dataclass(frozen=True, eq=False)
class PythonData:
    """A data set of a plugin."""

    name: str
    """Its name in a config."""
    function: Callable[[], Any]
    """Returns `Arrays`."""
    summary: str
    """One line for `drop list datasets`."""
    mark: str
    """Changes with the function's code."""
    paper: str = ""

    def source(self, root: Path) -> Source:
        """Return the data set, made now if there is no cache of it.

        Parameters
        ----------
        root
            The data folder, where caches are.

        Raises
        ------
        ConfigError
            If the function fails, or returns what is no data set, or a file that it declares is
            missing.
        """
        stamps = self._stamps()
        known = (self.name, cache.fingerprint(self.mark, stamps), str(root.resolve()))
        if known not in _DESCRIBED:
            _DESCRIBED[known] = self._source(root, stamps)
        return _DESCRIBED[known]

    def _stamps(self) -> list[Stamp]:
        try:
            return stamps_of(self.function)
        except ConfigError as error:
            raise ConfigError(f"dataset = {self.name}: {error}") from error

    def _source(self, root: Path, stamps: Sequence[Stamp]) -> Source:
        files = Files(
            key=f"own-{self.name}",
            title=self.name,
            folders=(".",),
            scan=lambda folder: self._stamps(),
            decode=lambda folder, names: self._made_anew(),
            remedy="",
            recipe=self.mark,
        )
        parts = files.read(root)
        facts = self._facts(root, files.fingerprint(stamps))
        shape, augmentation = parts[0].shape, facts["augmentation"]
        square = parts[0].x.dtype == torch.uint8 and shape[1] == shape[2]
        classes = len(facts["class_names"])
        return Source(
            name=self.name,
            summary=self.summary,
            paper=self.paper,
            num_classes=classes,
            channels=shape[0],
            size=shape[-1],
            held_out=_held_out(facts["held_out"], classes, parts),
            augmentation=Augmentation(**augmentation) if augmentation else None,
            class_names=tuple(facts["class_names"]),
            read=files.read,
            files=files,
            shape=None if square else shape,
        )

    def _facts(self, root: Path, mark: str) -> Mapping[str, Any]:
        for folder in cache.cache_folders(root):
            header = header_of(folder / f"own-{self.name}-{mark}")
            if header is not None and header.facts:
                return header.facts
        return self.made()[0].facts  # there is no place for a cache

    def _made_anew(self) -> tuple[Decoded, Decoded]:
        """Call the function; what is known of an earlier answer of it no longer holds."""
        made = self.made()
        for known in [known for known in _DESCRIBED if known[0] == self.name]:
            del _DESCRIBED[known]
        return made

    def made(self) -> tuple[Decoded, Decoded]:
        """Call the function, and check what it returns.

        Raises
        ------
        ConfigError
            If it fails, or returns what is no data set.
        """
        try:
            found: Any = self.function()
        except (Exception, SystemExit) as error:
            raise ConfigError(
                f"dataset = {self.name}: its function failed{place(error, self.function)}: "
                f"{said(error)}."
            ) from error
        try:
            return checked(found)
        except ConfigError as error:
            raise ConfigError(f"dataset = {self.name}: {error}") from error


_DESCRIBED: dict[tuple[str, str, str], Source] = {}


def _held_out(asked: int | None, classes: int, parts: Parts) -> int:
    """Return how many samples the server holds: of every class less than there are."""
    if asked is not None:
        return asked
    rarest = int(torch.bincount(parts[0].y, minlength=classes).min())
    return classes * max(0, min(HELD_OUT_PER_CLASS, rarest - 1))


def checked(found: Any) -> tuple[Decoded, Decoded]:
    """Turn what a function returned into training and test samples.

    Raises
    ------
    ConfigError
        If it is no data set; says which part, and what is allowed.
    """
    if not isinstance(found, Arrays):
        raise ConfigError(
            f"its function returned a {type(found).__name__}; it must return entity.dataset.Arrays."
        )
    _refuse_wrong_fields(vars(found))
    names = [str(name) for name in found.class_names]
    if len(names) < 2 or len(set(names)) < len(names):
        raise ConfigError(f"class_names = {show(names)}: allowed are two or more different names.")
    x, y = _part("train", found.train, len(names))
    other, labels = _part("test", found.test, len(names))
    if x.shape[1:] != other.shape[1:] or x.dtype != other.dtype:
        raise ConfigError(
            f"test has samples of {other.dtype} {other.shape[1:]}, and train of {x.dtype} "
            f"{x.shape[1:]}; they must be alike."
        )
    counts = np.bincount(y, minlength=len(names))
    if counts.min() == 0:
        raise ConfigError(f"train has no sample of class {names[int(counts.argmin())]}.")
    square = x.dtype == np.uint8 and x.shape[2] == x.shape[3]
    if found.augmentation is not None and not square:
        raise ConfigError("augmentation is for square images of bytes; leave it out.")
    facts = {
        "class_names": names,
        "held_out": None if found.held_out is None else int(found.held_out),
        "augmentation": None if found.augmentation is None else _plain(found.augmentation),
    }
    return Decoded.of(x, y, facts), Decoded.of(other, labels)


def _refuse_wrong_fields(found: Mapping[str, Any]) -> None:
    """Refuse fields of `Arrays` that are not of the types it says."""
    names, held, augmentation = found["class_names"], found["held_out"], found["augmentation"]
    if isinstance(names, str | bytes) or not isinstance(names, Iterable):
        raise ConfigError(
            f"class_names = {show(names)}: allowed is a list of two or more different names."
        )
    if held is not None and (isinstance(held, bool) or not _is_whole(held) or held < 0):
        raise ConfigError(f"held_out = {show(held)}: allowed is a whole number from 0, or None.")
    if augmentation is not None and not isinstance(augmentation, Augmentation):
        raise ConfigError(
            f"augmentation = {show(augmentation)}: allowed is an "
            "entity.dataset.augment.Augmentation, or None."
        )
    if augmentation is not None:
        _refuse_wrong_numbers(vars(augmentation))


def _refuse_wrong_numbers(augmentation: Mapping[str, Any]) -> None:
    pad, flip, degrees = augmentation["pad"], augmentation["flip"], augmentation["degrees"]
    if isinstance(pad, bool) or not _is_whole(pad) or pad < 0:
        raise ConfigError(f"augmentation.pad = {show(pad)}: allowed is a whole number from 0.")
    if not isinstance(flip, bool | np.bool):
        raise ConfigError(f"augmentation.flip = {show(flip)}: allowed is True or False.")
    real = isinstance(degrees, int | float | np.integer | np.floating)
    if isinstance(degrees, bool) or not real or not 0 <= degrees < math.inf:
        raise ConfigError(
            f"augmentation.degrees = {show(degrees)}: allowed is a finite number from 0."
        )


def _plain(augmentation: Augmentation) -> dict[str, Any]:
    """Return its numbers as JSON has them; NumPy's are none of these."""
    numbers = asdict(augmentation).items()
    return {name: each.item() if isinstance(each, np.generic) else each for name, each in numbers}


def _is_whole(number: object) -> bool:
    return isinstance(number, int | np.integer)


def _part(name: str, part: Any, classes: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    try:
        x, y = (_array(each) for each in part)
    except Exception as error:
        why = " ".join(str(error).split())[:120]
        raise ConfigError(
            f"{name} must be a pair of arrays, the samples and their labels ({why})."
        ) from error
    if x.ndim < 2 or len(x) == 0 or math.prod(x.shape) == 0:
        raise ConfigError(
            f"{name} has samples of shape {x.shape}; allowed is (N, ...), none empty."
        )
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise ConfigError(
            f"{name} has {len(x)} samples and labels of {y.dtype} {y.shape}; allowed are as many "
            "whole numbers."
        )
    if int(y.min()) < 0 or int(y.max()) >= classes:
        raise ConfigError(
            f"{name} has labels from {y.min()} to {y.max()}; allowed are 0 to {classes - 1}, as "
            f"there are {classes} class_names."
        )
    return _samples(name, x), y.astype(np.int64)


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


def _samples(name: str, x: NDArray[Any]) -> NDArray[Any]:
    """Return samples as bytes, float32 or int64."""
    if x.dtype == np.uint8:
        if x.ndim != 4:
            raise ConfigError(
                f"{name} has bytes of shape {x.shape}; bytes are images (N, channels, height, "
                "width), anything else is of floats or of larger whole numbers."
            )
        return x
    if x.dtype == np.uint64 and x.max() > np.iinfo(np.int64).max:
        raise ConfigError(
            f"{name} has whole numbers up to {x.max()}; allowed are those below 2**63."
        )
    if x.dtype.kind in "iub":
        return x.astype(np.int64)
    if x.dtype.kind != "f":
        raise ConfigError(f"{name} has samples of {x.dtype}; allowed are numbers.")
    with np.errstate(over="ignore"):  # said below, in words
        x = x.astype(np.float32)
    if not np.isfinite(x).all():
        raise ConfigError(f"{name} has samples that are not finite; allowed are finite numbers.")
    return x


__all__ = ["Arrays", "PythonData"]
