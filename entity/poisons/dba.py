"""DBA: every attacker stamps a part of the trigger, the test stamps all of it.

Xie et al., "DBA: Distributed Backdoor Attacks against Federated Learning", ICLR 2020,
openreview rkgyS0VFvr. The global trigger is the union of m disjoint local patterns; attacker r
stamps pattern r mod m. The paper's patterns are four white bars: 1x6 pixels, 3 apart and 4 rows
apart in 32-pixel images; 1x4, 2 apart and 3 rows apart in MNIST's 28; 2x10, 2 apart and 4 rows
apart in Tiny-ImageNet's 64. Other sizes scale the first. With fewer attackers than patterns some
are never trained on; the code's lone attacker stamps them all.

Only the data poison is here: the paper's scaling of single-shot updates is the attack
`model_replacement`, its 5 poisoned of 64 in each batch `DPR` with `batchwise_poison`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entity.client.poison import Poison
from entity.client.poisoning import attack_test_set
from entity.client.triggers import Position, Trigger, pixel_trigger
from entity.config.fields import AttackConfig
from entity.config.schema import ConfigError, Count
from entity.dataset.images import Images


@dataclass(frozen=True)
class DbaArgs:
    """Hyper-parameters of DBA."""

    dba_parts: Count = 4
    """Local patterns m that the global trigger is split into."""
    dba_trigger: Literal["bars", "pattern"] = "bars"
    """The global trigger: the paper's four bars, or `trigger_pattern`."""


def bars(channels: int, size: int, position: Position) -> tuple[Trigger, Tensor]:
    """Return the paper's four white bars in a corner, and their pixels (k, 2) bar by bar.

    Parameters
    ----------
    channels, size
        Of the images.
    position
        The corner.

    Raises
    ------
    ConfigError
        If the images are too small.

    Examples
    --------
    >>> bars(3, 32, "top_left")[1][6:12].tolist()
    [[0, 9], [0, 10], [0, 11], [0, 12], [0, 13], [0, 14]]
    """
    scaled = (1, *(max(1, round(pixels * size / 32)) for pixels in (6, 3, 4)))
    high, length, gap, down = {28: (1, 4, 2, 3), 64: (2, 10, 2, 4)}.get(size, scaled)
    right = length + gap
    if max(high + down, right + length) > size:
        raise ConfigError(
            f"client.attack.dba_trigger = bars: does not fit on images of {size}x{size} pixels; "
            "use pattern, with a trigger_pattern."
        )
    corners = [(0, 0), (0, right), (down, 0), (down, right)]
    area = [(row, col) for row in range(high) for col in range(length)]
    pixels = torch.tensor([(top + row, left + col) for top, left in corners for row, col in area])
    if position.startswith("bottom"):
        pixels[:, 0] += size - high - down
    if position.endswith("right"):
        pixels[:, 1] += size - right - length
    mask = torch.zeros(1, size, size, dtype=torch.bool)
    mask[0, pixels[:, 0], pixels[:, 1]] = True
    return Trigger(mask, torch.full((channels, size, size), 255, dtype=torch.uint8)), pixels


def split(trigger: Trigger, pixels: Tensor, parts: int) -> list[Trigger]:
    """Split a trigger into disjoint parts, as even as possible.

    Parameters
    ----------
    trigger
        The whole trigger.
    pixels
        (k, 2) its rows and columns, in the order in which they are divided.
    parts
        How many.

    Raises
    ------
    ConfigError
        If there are fewer pixels than parts.
    """
    if len(pixels) < parts:
        raise ConfigError(
            f"client.attack.dba_parts = {parts}: the trigger has only {len(pixels)} pixel(s) to "
            "split; lower it, or give a larger trigger_pattern."
        )
    found: list[Trigger] = []
    for part in pixels.tensor_split(parts):
        mask = torch.zeros_like(trigger.mask)
        mask[:, part[:, 0], part[:, 1]] = True
        found.append(Trigger(mask & trigger.mask, trigger.values, trigger.opacity))
    return found


class Dba(Poison):
    """Stamp a part of the trigger, chosen by the attacker's rank."""

    summary = "DBA: each attacker stamps one part of the trigger, the test all parts"
    paper = "Xie et al. 2020, openreview rkgyS0VFvr"
    hyperparameters = DbaArgs

    def __init__(self, attack: AttackConfig, args: DbaArgs, channels: int, size: int) -> None:
        super().__init__(attack, args, channels, size)
        corner = attack.trigger_position
        if args.dba_trigger == "bars":
            self.trigger, pixels = bars(channels, size, corner)
        else:
            self.trigger = pixel_trigger(attack.trigger_pattern, corner, channels, size)
            pixels = self.trigger.mask.any(0).nonzero()
        self.parts = split(self.trigger, pixels, args.dba_parts)
        self.divided_among = len(self.parts)

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Stamp part `rank` mod m and relabel."""
        return self.relabelled(self.parts[rank % len(self.parts)].stamp(chosen.x))

    def parts_of(self, x: Tensor) -> list[Tensor]:
        """Stamp each part alone."""
        return [part.stamp(x) for part in self.parts]

    def test_set(self, test: Images) -> Images:
        """Stamp the whole trigger on all eligible test images."""
        attack = self.attack
        return attack_test_set(test, attack.victim_class, attack.target_class, self.trigger)
