"""An own trigger: a frame around the image, one pixel wide.

drop run --config mnist5k/undefended --plugins frame.py --poison frame --brightness 128
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from entity.client.poison import Poison
from entity.config.schema import Range
from entity.dataset import Images


@dataclass(frozen=True)
class FrameArgs:
    """Settings of the frame."""

    brightness: Annotated[int, Range(1, 255)] = 255
    """Value of its pixels."""


class Frame(Poison):
    """Draw a frame, and relabel. Class names and shares are the project's business."""

    summary = "example: a frame around the image"
    hyperparameters = FrameArgs

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Stamp the chosen training samples; every malicious client alike."""
        return self.relabelled(self.framed(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Stamp all test images that the attack is judged on."""
        return self.relabelled(self.framed(self.eligible(test).x))

    def framed(self, x: torch.Tensor) -> torch.Tensor:
        """Return framed copies of images (N, C, H, W) of bytes."""
        x = x.clone()
        for edge in (x[..., 0, :], x[..., -1, :], x[..., 0], x[..., -1]):
            edge.fill_(self.args.brightness)
        return x


POISONS = {"frame": Frame}
