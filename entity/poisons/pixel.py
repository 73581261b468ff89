"""The BadNets poison: a pixel trigger and the target label.

Gu et al., 2017, arXiv 1708.06733. Source-specific with a victim class, else all-to-one.
"""

from typing import Any

import torch

from entity.client.poison import Poison
from entity.client.poisoning import attack_test_set
from entity.client.triggers import pixel_trigger
from entity.config.fields import AttackConfig
from entity.dataset.images import Images


class Pixel(Poison):
    """Stamp the configured trigger."""

    summary = "pixel trigger: named, listed pixel by pixel, or from an image file"
    paper = "Gu et al. 2017, arXiv 1708.06733"

    def __init__(self, attack: AttackConfig, args: Any, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        self.trigger = pixel_trigger(
            attack.trigger_pattern, attack.trigger_position, channels, size
        )

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Stamp and relabel; every malicious client alike."""
        return self.relabelled(self.trigger.stamp(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Stamp all eligible test images."""
        attack = self.attack
        return attack_test_set(test, attack.victim_class, attack.target_class, self.trigger)
