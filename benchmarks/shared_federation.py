"""A federation as a file: every framework trains the same model on the same data."""

from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from entity.models import build


@dataclass(frozen=True)
class SharedFederation:
    """What all frameworks train: data, initial model and rates."""

    model: str
    channels: int
    size: int
    rounds: int
    epochs: int
    batch: int
    lr: float
    """Of plain SGD, without momentum or weight decay, as blazefl's FedAvg has it."""
    workers: int
    clients: list[tuple[Tensor, Tensor]]
    """Images (b, C, H, W) in [-1, 1] and labels (b,) of each client."""
    test: tuple[Tensor, Tensor]
    """The same of the test set."""
    state: dict[str, Tensor]
    """The model's initial weights."""

    def save(self, path: Path) -> None:
        """Write it to a file."""
        torch.save(asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> "SharedFederation":
        """Read it from a file."""
        return cls(**torch.load(path, weights_only=True))

    def fresh_model(self) -> nn.Module:
        """Return the model with its initial weights, in PyTorch's default memory format."""
        model = build(self.model, self.channels, self.size, 10, torch.Generator())
        model.load_state_dict(self.state)
        return model.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]

    def accuracy(self, model: nn.Module) -> float:
        """Return the share of test images that a model classifies as labelled."""
        model.eval()
        x, y = self.test
        with torch.no_grad():
            hits = sum(
                int((model(images).argmax(1) == labels).sum())
                for images, labels in zip(x.split(500), y.split(500), strict=True)
            )
        return hits / len(y)


@lru_cache(1)
def cached(path: Path) -> SharedFederation:
    """Read a federation, once in a process."""
    return SharedFederation.load(path)
