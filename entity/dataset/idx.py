"""The idx format of MNIST and its relatives: four files, plain or gzipped.

The files are read here and not by torchvision, which needs them unpacked.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from entity.dataset.decoded import Decoded
from entity.dataset.files import AGAIN, damaged
from entity.reading import at_most, open_regular

SIZE = 28
"""Height and width of the images of all these data sets."""
MOST_BYTES = 1 << 30
"""Bytes of a file's content; the largest of these has 88 million."""


def decode(
    folder: Path, names: Sequence[str], *, classes: int, transposed: bool = False
) -> tuple[Decoded, Decoded]:
    """Read training images, training labels, test images and test labels.

    Parameters
    ----------
    folder, names
        Of the four files.
    classes
        Labels are below it.
    transposed
        Rows and columns of the images are to be swapped.

    Raises
    ------
    ConfigError
        If a file is damaged.
    """
    parts: list[Decoded] = []
    for images, labels in zip(names[::2], names[1::2], strict=True):
        x, y = read_idx(folder / images), read_idx(folder / labels)
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y) or len(x) == 0:
            shapes = f"{tuple(x.shape)} for labels {tuple(y.shape)}"
            raise damaged(folder / images, f"it holds images {shapes}", AGAIN)
        if x.shape[1:] != (SIZE, SIZE):
            found = f"it holds images of {x.shape[1]}x{x.shape[2]} instead of {SIZE}x{SIZE}"
            raise damaged(folder / images, found, AGAIN)
        if int(y.max()) >= classes:
            raise damaged(folder / labels, f"it holds the label {int(y.max())}", AGAIN)
        x = x.transpose(1, 2) if transposed else x
        parts.append(Decoded.of(x.unsqueeze(1).numpy(), y.numpy()))
    return parts[0], parts[1]


def read_idx(path: Path) -> Tensor:
    """Read an idx file of unsigned bytes, plain or gzipped.

    Its header is 0, 0, 8 (for unsigned bytes), the number of dimensions, and each dimension as
    a big-endian 32-bit number.

    Raises
    ------
    ConfigError
        If it is not such a file.
    """
    try:
        with open_regular(path) as raw:
            file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
            head = file.read(4)
            if head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 3:
                raise ValueError
            shape = np.frombuffer(file.read(4 * head[3]), ">u4", count=head[3]).tolist()
            if math.prod(shape) > MOST_BYTES:
                raise ValueError
            # No more than the header says is unpacked: 4 MB may be packed from 4 GB.
            data = at_most(file, math.prod(shape), path)
        return torch.from_numpy(np.frombuffer(data, np.uint8).reshape(shape).copy())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise damaged(path, "not an idx file of unsigned bytes", AGAIN) from error
