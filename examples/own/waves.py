"""An own data set with an own model: waves of 64 numbers, which are sine, square or saw.

Not images: floats, which the model gets as they are. The trigger is a spike.

drop run --config waves.yaml
"""

import numpy as np
import torch
from torch import nn

from entity.client.poison import Poison
from entity.dataset import Arrays, Images
from entity.models import Classifier

LENGTH = 64
SPIKE = 20
"""Place of the trigger."""


def waves() -> Arrays:
    """Waves of 64 numbers: sine, square or saw, of any pitch and phase, in noise."""
    rng = np.random.default_rng(1)

    def draw(count):
        y = np.arange(count) % 3
        pitch, phase = rng.uniform(2, 5, (count, 1)), rng.uniform(0, 1, (count, 1))
        turn = pitch * np.linspace(0, 1, LENGTH) + phase
        shapes = np.stack([np.sin(2 * np.pi * turn), np.sign(turn % 1 - 0.5), 2 * (turn % 1) - 1])
        return shapes[y, np.arange(count)] + rng.normal(0, 0.2, (count, LENGTH)), y

    return Arrays(train=draw(1500), test=draw(300), class_names=("sine", "square", "saw"))


def wave_net(length: int, classes: int) -> nn.Module:
    """Build two convolutions along the wave, and a linear head; 3k parameters."""
    features = nn.Sequential(
        nn.Unflatten(1, (1, length)),
        nn.Conv1d(1, 16, 9, stride=2),
        nn.ReLU(),
        nn.Conv1d(16, 16, 9, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
    )
    return Classifier(features, nn.Linear(16, classes))


class Spike(Poison):
    """Put one high number into the wave."""

    summary = "example: a spike in a wave"
    any_samples = True

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Return spiked copies under the target label."""
        return self.relabelled(self.spiked(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Spike all test samples that the attack is judged on."""
        return self.relabelled(self.spiked(self.eligible(test).x))

    def spiked(self, x: torch.Tensor) -> torch.Tensor:
        """Return copies of waves (N, 64) with a spike."""
        x = x.clone()
        x[:, SPIKE : SPIKE + 2] = 4.0
        return x


DATASETS = {"waves": waves}
MODELS = {"wave_net": wave_net}
POISONS = {"spike": Spike}
