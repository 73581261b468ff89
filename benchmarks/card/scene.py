"""What the parts share: the device, their sizes, and small federations on random images."""

from dataclasses import dataclass
from typing import Any

import torch
from random_images import register_random_images
from torch import nn

from entity.config.fields import ExperimentConfig
from entity.layout import ModelState
from entity.models import build
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import recruit
from entity.setup.roster import Roster


@dataclass(frozen=True)
class Scale:
    """Sizes: those of the paper, or those of a trial of the script on a CPU."""

    model: str = "resnet18"
    size: int = 32
    batches: tuple[int, ...] = (64, 128, 256)
    """The paper's batch sizes."""
    clients: int = 3
    """Of a turn of the engine, in the samples a second."""
    samples: int = 1000
    """Of each."""
    epochs: int = 2
    turns: int = 5
    """Pairs of an engine's turn and the bare loop."""
    product: int = 8192
    """Width of the square matrices that say what the card can do."""
    teachers: int = 25
    """Of the distillation."""


PAPER = Scale()
TINY = Scale("resnet8", 16, (8,), 2, 24, 1, 2, 64, 2)


def synchronise(device: torch.device) -> None:
    """Wait until a device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def number_of(device: torch.device) -> int:
    """Return a device as `settings.cuda` says it."""
    return -1 if device.type == "cpu" else device.index or 0


def federation(
    device: torch.device, model: str, size: int, clients: int, samples: int, **changes: Any
) -> ExperimentConfig:
    """Return an experiment on random images, without an attack.

    Parameters
    ----------
    device
        Where clients train.
    model
        The classifier.
    size
        Height and width of the RGB images.
    clients, samples
        The federation, all of which takes part, and the images of each.
    changes
        Fields of `client`, and `engine` and `norm`.
    """
    settings = {"seed": 1, "cuda": number_of(device), "num_threads": 1}
    settings["engine"] = changes.pop("engine", "inline")
    return resolve.experiment(
        {
            "dataset": register_random_images(3, size, clients * samples, test=20),
            "model": model,
            "norm": changes.pop("norm", "batch"),
            "client": {"momentum": 0.9, "weight_decay": 5e-4, "lr": 0.01, **changes},
            "federation": {"size": clients, "round_size": clients, "rounds": 1},
            "settings": settings,
        }
    )


def roster_of(config: ExperimentConfig) -> Roster:
    """Return the clients of an experiment."""
    return recruit(config, Seeds(config.settings.seed))[1]


def module_like(roster: Roster, state: ModelState) -> nn.Module:
    """Return the clients' model with a given state."""
    model = roster.new_model()
    roster.spec.load(model, state)
    return model


def classifier(model: str, size: int) -> nn.Module:
    """Return a classifier of RGB images into ten classes, always with the same first weights."""
    return build(model, 3, size, 10, torch.Generator().manual_seed(1))
