"""Blended: a faint pattern over the whole image.

Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017,
arXiv 1712.05526. A poisoned image is (1 - α) x + α k for one fixed pattern k: uniform noise, or a
picture given as `trigger_pattern`. The same α in training and in the test.

The noise comes from a generator of its own with a constant seed, so that it is one pattern in all
experiments: a trigger is part of the attack, not of the experiment's randomness.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch

from entity.client.poison import Poison
from entity.client.poisoning import attack_test_set
from entity.client.triggers import Trigger, pixel_trigger
from entity.config.fields import AttackConfig
from entity.config.schema import Fraction
from entity.dataset.images import Images

_NOISE_SEED = 171205526


@dataclass(frozen=True)
class BlendedArgs:
    """Hyper-parameters of Blended."""

    blend_opacity: Fraction = 0.2
    """Share of the pattern in a poisoned image; 0.1 to 0.2 in the paper."""
    blend_with: Literal["noise", "pattern"] = "noise"
    """The pattern: uniform noise, or `trigger_pattern`, an image file for one, where it stamps."""


class Blended(Poison):
    """Blend a fixed pattern into the image."""

    summary = "blended: a faint pattern over the whole image, noise or a picture"
    paper = "Chen et al. 2017, arXiv 1712.05526"
    hyperparameters = BlendedArgs

    def __init__(self, attack: AttackConfig, args: BlendedArgs, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        if args.blend_with == "noise":
            rng = torch.Generator().manual_seed(_NOISE_SEED)
            shape = (channels, size, size)
            noise = torch.randint(256, shape, generator=rng, dtype=torch.uint8)
            pattern = Trigger(torch.ones(1, size, size, dtype=torch.bool), noise)
        else:
            pattern = pixel_trigger(attack.trigger_pattern, attack.trigger_position, channels, size)
        self.trigger = replace(pattern, opacity=args.blend_opacity)

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Blend and relabel; every malicious client alike."""
        return self.relabelled(self.trigger.stamp(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Blend all eligible test images."""
        attack = self.attack
        return attack_test_set(test, attack.victim_class, attack.target_class, self.trigger)
