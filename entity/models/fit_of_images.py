"""Which images a classifier can take, found out without computing anything.

A model is built and called on PyTorch's `meta` device, where tensors have shapes and no contents.
"""

import warnings
from functools import cache

import torch
from torch import nn

from entity.models.user_model import Make
from entity.seeding import global_stream

LARGEST = 64
"""Side of the largest images that are tried in search of those that a model can take."""


@cache
def takes(make: Make, channels: int, size: int) -> bool:
    """Whether a classifier can be trained on images of this size.

    Parameters
    ----------
    make
        Builds it from (channels, size, classes).
    channels, size
        Of the images.

    Examples
    --------
    >>> from entity.models import MODELS
    >>> takes(MODELS["lenet"].make, 1, 15), takes(MODELS["lenet"].make, 1, 16)
    (False, True)
    """
    images = torch.zeros(2, channels, size, size, device="meta")
    try:
        with warnings.catch_warnings(), global_stream(torch.Generator()), torch.device("meta"):
            warnings.simplefilter("ignore")
            make(channels, size, 2).train()(images)
    except (RuntimeError, ValueError, ZeroDivisionError):
        return False
    return True


def next_size(make: Make, channels: int, size: int) -> int | None:
    """Return the side of the next larger images that a classifier takes; None if none up to 64.

    Parameters
    ----------
    make
        Builds it from (channels, size, classes).
    channels, size
        Of images that it does not take.
    """
    return next(
        (side for side in range(size + 1, LARGEST + 1) if takes(make, channels, side)), None
    )


def trains_on_one(model: nn.Module, image: torch.Tensor) -> bool:
    """Whether a model can be trained on a batch of one image (C, S, S), which it may remember.

    BatchNorm cannot where its input is one value a channel.
    """
    try:
        with torch.no_grad(), global_stream(torch.Generator()):
            model.train()(image[None])
    except ValueError:
        return False
    return True


__all__ = ["next_size", "takes", "trains_on_one"]
