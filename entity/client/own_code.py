"""Whether what an attack or a data poison returns is what the simulator goes on with.

Anybody can write one. A model of another shape, or images that the client's others cannot be mixed
with, would fail far from the code that made them.
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from entity.config.schema import ConfigError
from entity.dataset.images import Images
from entity.layout import ModelState
from entity.returned import kind, like


def checked_model(attacker: object, sent: object, trained: ModelState) -> ModelState:
    """Return what `Attacker.craft` returned, once it is a model of the federation's.

    Parameters
    ----------
    attacker
        Whose it is, for the message.
    sent
        What it returned. Its numbers may be anything: the server's gate judges them.
    trained
        The model that it was given.

    Raises
    ------
    ConfigError
        If it is no `ModelState`, or its vectors are not of that model's type and length.
    """
    method = f"{type(attacker).__name__}.craft"
    if not isinstance(sent, ModelState):
        raise ConfigError(
            f"{method} returned {kind(sent)}; it must return an entity.layout.ModelState."
        )
    for name, found, wanted in zip(ModelState._fields, sent, trained, strict=True):
        if not like(found, wanted):
            raise ConfigError(
                f"{method} returned {name} that are {kind(found)}; they must be {kind(wanted)}."
            )
    return sent


@contextmanager
def unchanged(attacker: object, sent: Sequence[tuple[str, torch.Tensor]]) -> Generator[None]:
    """Refuse what changes a broadcast in place, from which others are still to train.

    Parameters
    ----------
    attacker
        Who is at work in the block, for the message.
    sent
        The tensors of the broadcast, each with the field that it is of.

    Raises
    ------
    ConfigError
        If one was written to.
    """
    before = _versions(sent)
    yield
    for (name, _), old, new in zip(sent, before, _versions(sent), strict=True):
        if new != old:
            raise ConfigError(
                f"{type(attacker).__name__} changes broadcast.{name} in place, which the other "
                "clients train from; work on a clone."
            )


def _versions(sent: Sequence[tuple[str, torch.Tensor]]) -> list[int]:
    return [0 if tensor.is_inference() else tensor._version for _, tensor in sent]


def checked_copies(poison: object, found: object, chosen: Images, classes: int | None) -> Images:
    """Return what `Poison.poison` returned, once it can take the place of what it was given.

    Parameters
    ----------
    poison
        Whose it is, for the message.
    found
        What it returned.
    chosen
        The samples that it was given.
    classes
        Number of classes; None where nobody knows.

    Raises
    ------
    ConfigError
        If it is no `Images`, its samples or labels are not of the type and the shape of those, a
        label is of no class, or a sample is not finite.
    """
    method = f"{type(poison).__name__}.poison"
    images = _images(method, found, classes)
    for name, part, wanted in (("x", images.x, chosen.x), ("y", images.y, chosen.y)):
        if not like(part, wanted):
            raise ConfigError(
                f"{method} returned {name} that is {kind(part)}; it must be {kind(wanted)}."
            )
    _refuse_not_finite(method, images.x)
    return images


def checked_test(poison: object, found: object, test: Images, classes: int) -> Images:
    """Return what `Poison.test_set` returned, once a model can be judged on it.

    Parameters
    ----------
    poison
        Whose it is, for the message.
    found
        What it returned: any number of samples.
    test
        The clean test set.
    classes
        Number of classes.

    Raises
    ------
    ConfigError
        If it is no `Images`, its samples are not of the type and the shape of the test set's, it
        has not one label for each, of a class, or a sample is not finite.
    """
    method = f"{type(poison).__name__}.test_set"
    images = _images(method, found, classes)
    x, y = images.x, images.y
    if x.dtype != test.dtype or tuple(x.shape[1:]) != test.shape:
        raise ConfigError(
            f"{method} returned x that is {kind(x)}; it must be of the test set's samples, "
            f"{str(test.dtype).removeprefix('torch.')} and shape (N, "
            f"{', '.join(map(str, test.shape))})."
        )
    if y.shape != x.shape[:1]:
        raise ConfigError(
            f"{method} returned {len(x)} samples and y that is {kind(y)}; it must have a label for "
            "each."
        )
    _refuse_not_finite(method, x)
    return images


def checked_memory(owner: object, method: str, found: object) -> dict[str, torch.Tensor]:
    """Return what colluders keep for their next round, once it is what a checkpoint can hold.

    Parameters
    ----------
    owner
        The attack's class, or the poison, for the message.
    method
        `conspire` or `adapt`.
    found
        What it returned.

    Raises
    ------
    ConfigError
        If it is no table of tensors by name.
    """
    named = owner if isinstance(owner, type) else type(owner)
    said = f"{named.__name__}.{method} returned"
    if not isinstance(found, Mapping):
        raise ConfigError(
            f"{said} {kind(found)}; it must return a table of tensors, {{}} for none."
        )
    memory: dict[str, torch.Tensor] = {}
    for name, value in found.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ConfigError(f"{said} {name!r}: {kind(value)}; allowed are tensors by name.")
        memory[name] = value
    return memory


def checked_rows(poison: object, found: object, samples: int) -> torch.Tensor:
    """Return what `Poison.choose` returned, once it is positions of samples.

    Parameters
    ----------
    poison
        Whose it is, for the message.
    found
        What it returned.
    samples
        How many the client has.

    Raises
    ------
    ConfigError
        If it is no tensor (k,) of int64 that increases from 0 or more to less than that.
    """
    said = f"{type(poison).__name__}.choose returned"
    if not isinstance(found, torch.Tensor) or found.dtype != torch.int64 or found.ndim != 1:
        raise ConfigError(f"{said} {kind(found)}; it must be a tensor of int64 and shape (k,).")
    if len(found) and (
        int(found[0]) < 0 or int(found[-1]) >= samples or bool((found.diff() <= 0).any())
    ):
        raise ConfigError(
            f"{said} positions that do not increase, or are not from 0 to {samples - 1}."
        )
    return found


def _refuse_not_finite(method: str, x: torch.Tensor) -> None:
    """Refuse samples of NaN or infinite numbers, which no data set has; bytes cannot be such."""
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise ConfigError(f"{method} returned samples that are not finite numbers.")


def _images(method: str, found: Any, classes: int | None) -> Images:
    if not isinstance(found, Images):
        raise ConfigError(f"{method} returned {kind(found)}; it must return entity.dataset.Images.")
    for name in ("x", "y"):
        part: object = getattr(found, name)
        if not isinstance(part, torch.Tensor):
            raise ConfigError(
                f"{method} returned {name} that is {kind(part)}; it must be a tensor."
            )
    if found.y.dtype != torch.int64:
        raise ConfigError(f"{method} returned y that is {kind(found.y)}; labels must be of int64.")
    if classes is not None and found.y.numel():
        low, high = (int(each) for each in found.y.aminmax())
        if low < 0 or high >= classes:
            raise ConfigError(
                f"{method} returned the label {low if low < 0 else high}; allowed are 0 to "
                f"{classes - 1}."
            )
    return found
