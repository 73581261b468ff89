"""Classifiers that federations train, and the generators and critics of distillation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from entity.config.schema import ConfigError, unknown
from entity.models.classifier import Classifier, head_of
from entity.models.cnn import cnn, lenet
from entity.models.critics import Critic, conv3_dis
from entity.models.dfme_generator import dfme_gen
from entity.models.examination import examine
from entity.models.generators import Generator, conv3_cgen, conv3_gen
from entity.models.norm import with_group_norm
from entity.models.resnet import (
    emnist_resnet18,
    gtsrb_resnet18,
    resnet8,
    resnet18,
    resnet20,
    resnet34,
)
from entity.models.supcon import SupConTwin
from entity.models.user_model import Make, arguments, imported
from entity.models.vgg import vgg11
from entity.models.vit import vit
from entity.seeding import global_stream

__all__ = [
    "ALIASES",
    "CRITICS",
    "GENERATORS",
    "MODELS",
    "Classifier",
    "Critic",
    "Generator",
    "ModelEntry",
    "SupConTwin",
    "build",
    "build_for",
    "examine",
    "find",
    "head_of",
]


@dataclass(frozen=True)
class ModelEntry:
    """A classifier of the registry."""

    make: Make
    summary: str
    paper: str = ""
    own: bool = False
    """Whether it is the user's: of a plugin, or `module:function`."""


_HE = "He et al. 2016, arXiv 1512.03385"

MODELS: dict[str, ModelEntry] = {
    "cnn": ModelEntry(cnn, "2 convolutions (16, 32), 2 linear layers (64, classes); 106k at 28x28"),
    "lenet": ModelEntry(
        lenet, "LeNet-5 with ReLU and max pooling; 44k at 28x28", "LeCun et al. 1998"
    ),
    "resnet8": ModelEntry(resnet8, "ResNet-8 (16, 32, 64 filters); 78k parameters", _HE),
    "resnet20": ModelEntry(resnet20, "ResNet-20 (16, 32, 64 filters); 272k parameters", _HE),
    "resnet18": ModelEntry(resnet18, "ResNet-18 of the DROP experiments; 11.2M parameters", _HE),
    "resnet34": ModelEntry(resnet34, "ResNet-34 of the same family; 21.3M parameters", _HE),
    "emnist_resnet18": ModelEntry(
        emnist_resnet18, "resnet18 that never pools behind its stem; 11.2M parameters", _HE
    ),
    "gtsrb_resnet18": ModelEntry(
        gtsrb_resnet18, "resnet18 that always pools behind its stem; 11.2M parameters", _HE
    ),
    "vgg11": ModelEntry(
        vgg11,
        "VGG-11 with BatchNorm and one hidden layer of 512; 9.5M parameters",
        "Simonyan and Zisserman 2015, arXiv 1409.1556",
    ),
    "vit": ModelEntry(
        vit,
        "vision transformer, 4x4 patches, 4 blocks of width 96; 0.3M parameters",
        "Dosovitskiy et al. 2021, arXiv 2010.11929",
    ),
}

ALIASES = {
    "emnist": "emnist_resnet18",
    "fashionmnist": "emnist_resnet18",
    "gtsrb": "gtsrb_resnet18",
}
"""The original's names of models, which its configs have."""

GENERATORS: dict[str, Callable[[int, int, int, int, int], Generator]] = {
    "conv3_gen": conv3_gen,
    "conv3_cgen": conv3_cgen,
    "dfme_gen": dfme_gen,
}
"""(channels, size, latent, width, classes) -> generator."""

CRITICS: dict[str, Callable[[int, int, int], Critic]] = {"conv3_dis": conv3_dis}
"""(channels, size, width) -> critic."""


def find(name: str) -> ModelEntry:
    """Return a classifier of the registry, or a user's own, given as `module:function`.

    Raises
    ------
    ConfigError
        If there is no such name, module or function.
    """
    name = ALIASES.get(name, name)
    if name in MODELS:
        return MODELS[name]
    if ":" not in name:
        raise ConfigError(unknown(f"model {name}", name, MODELS))
    return ModelEntry(imported(name), "a model of the user's own", own=True)


def build(
    name: str,
    channels: int,
    size: int,
    classes: int,
    generator: torch.Generator,
    norm: Literal["batch", "group"] = "batch",
) -> nn.Module:
    """Build a classifier whose initial weights come from `generator` alone.

    The module is in channels_last memory format, which convolutions are faster in. With `norm`
    "group" it has GroupNorm where it was made with BatchNorm.

    Parameters
    ----------
    name
        A name of `MODELS` or of `ALIASES`, or `module:function`.
    channels, size, classes
        Of the images, and the number of logits.
    generator
        Where the initial weights are drawn from.
    norm
        Normalisation of the convolutions.
    """
    return build_for((channels, size, size), name, classes, generator, norm)


def build_for(
    shape: Sequence[int],
    name: str,
    classes: int,
    generator: torch.Generator,
    norm: Literal["batch", "group"] = "batch",
) -> nn.Module:
    """Build a classifier for samples of any shape, as `build` does for square images.

    Parameters
    ----------
    shape
        Of a sample.
    name, classes, generator, norm
        As `build` takes them.
    """
    entry = find(name)
    with global_stream(generator):
        model = entry.make(*arguments(shape, classes))
    if norm == "group":
        model = with_group_norm(model)
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    for parameter in model.parameters():
        if not _is_dense(parameter):  # fused optimisers would step on what lies between its entries
            parameter.data = parameter.data.contiguous()
    return model


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the entries of a tensor lie side by side in memory, in whatever order."""
    expected = 1
    by_stride = sorted(zip(tensor.stride(), tensor.shape, strict=True))
    for stride, size in by_stride:
        if size > 1 and stride != expected:
            return False
        expected *= size
    return True
