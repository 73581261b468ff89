"""The idx format of MNIST and its relatives: four files, plain or gzipped.

The files are read here and not by torchvision, which needs them unpacked.
"""

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from entity.dataset.decoded import Decoded
from entity.dataset.files import AGAIN, damaged


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
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        if data[:3] != b"\0\0\x08":
            raise ValueError
        shape = np.frombuffer(data, ">u4", count=data[3], offset=4)
        pixels = np.frombuffer(data, np.uint8, offset=4 + 4 * data[3])
        return torch.from_numpy(pixels.reshape(shape.tolist()).copy())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise damaged(path, "not an idx file of unsigned bytes", AGAIN) from error
