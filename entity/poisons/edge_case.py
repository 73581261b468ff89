"""Edge cases: rare images of a class, under another label.

Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020,
arXiv 2007.05084. The backdoor is a kind of image from the tail of a class (Southwest airplanes as
trucks), which benign clients hardly hold. The user brings the images; each chosen sample of an
attacker is replaced by one of them.

Half of the images, drawn once with a generator of constant seed, is for training, the other half
is held out and gives the attack success rate. The user must make sure that none of them truly is
of the target class. The paper's ready-made sets are Python pickles, which we never open: save
their array as .npz.
"""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from entity.client.poison import Poison
from entity.config.fields import AttackConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError, show
from entity.dataset.images import Images
from entity.dataset.tree import TooDeepPixels, open_image, refuse_deep
from entity.reading import open_regular

_SPLIT_SEED = 200705084

MOST_BYTES = 1 << 30
"""Bytes of an .npz file when unpacked."""

_UNREADABLE = (
    OSError,
    EOFError,
    MemoryError,
    AttributeError,
    IndexError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    UnpicklingError,
    zipfile.BadZipFile,
    Image.DecompressionBombError,
)
"""Errors of torch, NumPy and Pillow for files whose content does not fit their name."""


@dataclass(frozen=True)
class EdgeCaseArgs:
    """Hyper-parameters of the edge-case poison."""

    edge_case_path: str
    """At least two uint8 images of the data set's size: a folder of image files, a .pt with a
    tensor, or a .npz whose first array is taken; (N, C, H, W) or (N, H, W, C)."""


def read_images(path: Path, channels: int, size: int) -> Tensor:
    """Read edge-case images (N, C, H, W) uint8.

    Parameters
    ----------
    path
        A folder of images, a .pt or a .npz file.
    channels, size
        Of the data set's images.

    Raises
    ------
    ConfigError
        If they cannot be read, or are not two or more uint8 images of this shape.
    """
    try:
        x = _load(path, channels, size)
    except ConfigError:
        raise
    except TooDeepPixels as error:
        raise _refusal(path, f"with pixels of 8 bits, and {error}") from None
    except FileNotFoundError:
        raise _refusal(path, "and there is no such file") from None
    except _UNREADABLE:
        raise _refusal(path, "and this one cannot be read") from None
    if not isinstance(x, Tensor) or x.dtype != torch.uint8 or x.ndim != 4:
        found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x)
        raise _refusal(path, f"as one uint8 array (N, C, H, W), and this holds {found}")
    if x.shape[1:] == (size, size, channels):
        x = x.permute(0, 3, 1, 2)
    if x.shape[1:] != (channels, size, size) or len(x) < 2:
        raise _refusal(
            path,
            f"with two or more images of {channels}x{size}x{size}, and this has the shape "
            f"{tuple(x.shape)}",
        )
    return x.contiguous()


def _load(path: Path, channels: int, size: int) -> object:
    if path.is_dir():
        return _from_folder(path, channels, size)
    open_regular(path).close()
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True)
    with zipfile.ZipFile(path) as packed:
        if sum(each.file_size for each in packed.infolist()) > MOST_BYTES:
            raise ValueError("it unpacks to more than images need")
    with np.load(path, allow_pickle=False) as arrays:
        return torch.from_numpy(arrays[arrays.files[0]])


def _from_folder(folder: Path, channels: int, size: int) -> Tensor:
    found: list[Tensor] = []
    for file in sorted(p for p in folder.iterdir() if not p.is_dir() and p.name[0] != "."):
        with open_image(file) as image:
            refuse_deep(image)
            if image.size != (size, size):
                raise _refusal(
                    folder,
                    f"with images of {size}x{size}, and {file.name} has "
                    f"{image.width}x{image.height}; resize it",
                )
            pixels = np.array(image.convert("RGB" if channels == 3 else "L"))
        found.append(torch.from_numpy(pixels).view(size, size, channels))
    return torch.stack(found) if found else torch.empty(0, size, size, channels, dtype=torch.uint8)


def _refusal(path: Path, why: str) -> ConfigError:
    return ConfigError(
        f"client.attack.edge_case_path = {show(str(path))}: allowed is a folder of images, a .pt "
        f"or a .npz file, {why}."
    )


class EdgeCase(Poison):
    """Replace samples by edge-case images under the target label."""

    summary = "edge cases: rare images of a class, brought by the user, under the target label"
    paper = "Wang et al. 2020, arXiv 2007.05084"
    hyperparameters = EdgeCaseArgs
    triggers_the_test = False

    def __init__(self, attack: AttackConfig, args: EdgeCaseArgs, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        x = read_images(user_path(args.edge_case_path), channels, size)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(_SPLIT_SEED))
        half = (len(x) + 1) // 2
        self.train, self.held_out = x[order[:half]], x[order[half:]]

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Return as many training images as were chosen, none twice before all were taken."""
        rounds = -(-len(chosen) // len(self.train))
        drawn = [torch.randperm(len(self.train), generator=generator) for _ in range(rounds)]
        rows = torch.cat(drawn)[: len(chosen)] if drawn else torch.empty(0, dtype=torch.long)
        return self.relabelled(self.train[rows])

    def test_set(self, test: Images) -> Images:
        """Return the held-out edge-case images; the data set's own are not used."""
        return self.relabelled(self.held_out)
