"""Own triggers: every attacker has a trigger of its own, and any of them opens the backdoor.

Ours, written against defenses that look for what attackers have in common. Attacker r stamps
trigger r mod m: the named pattern of four pixels, moved to one of m places that are spread evenly
along the border of the image. Nothing that two attackers teach is the same but the target class.
The test stamps the triggers in turn, each on its share of the test images.
"""

from dataclasses import dataclass

import torch

from entity.client.poison import Poison
from entity.client.poisoning import eligible
from entity.client.triggers import PATTERNS, Trigger, pixel_trigger
from entity.config.fields import AttackConfig
from entity.config.schema import Count
from entity.dataset.images import Images


@dataclass(frozen=True)
class OwnTriggerArgs:
    """Hyper-parameters of own triggers (ours)."""

    own_triggers: Count = 4
    """m, triggers in all; with fewer than attackers some share one."""


def places(size: int, number: int) -> list[tuple[int, int]]:
    """Return the upper left corners (row, column) of triggers along an image's border.

    They start in the upper left corner and go round clockwise at even distances, 5 x 5 pixels each
    with the free pixel around the pattern.

    Parameters
    ----------
    size
        Of the image, in pixels.
    number
        How many.

    Examples
    --------
    >>> places(28, 4)
    [(0, 0), (0, 23), (23, 23), (23, 0)]
    """
    side = max(0, size - 5)
    found: list[tuple[int, int]] = []
    for i in range(number):
        edge, along = divmod(4 * side * i // number, side) if side else (0, 0)
        found.append(((0, along), (along, side), (side, side - along), (side - along, 0))[edge])
    return found


class OwnTrigger(Poison):
    """Stamp the trigger of the attacker's rank."""

    summary = "own triggers: each attacker has its own, the test takes them in turn"
    paper = "ours, against DROP+"
    hyperparameters = OwnTriggerArgs

    def __init__(
        self, attack: AttackConfig, args: OwnTriggerArgs, channels: int, size: int
    ) -> None:
        super().__init__(attack, args, channels, size)
        self.triggers: list[Trigger] = []
        for down, right in places(size, args.own_triggers):
            pixels = [(row + down, column + right) for row, column in PATTERNS["4pixel"]]
            self.triggers.append(pixel_trigger(pixels, "top_left", channels, size))
        self.divided_among = len(self.triggers)

    def poison(self, chosen: Images, rank: int, generator: torch.Generator) -> Images:
        """Stamp trigger `rank` mod m and relabel."""
        return self.relabelled(self.triggers[rank % len(self.triggers)].stamp(chosen.x))

    def test_set(self, test: Images) -> Images:
        """Stamp the triggers in turn on all eligible test images."""
        attack = self.attack
        x = test.subset(eligible(test.y, attack.victim_class, attack.target_class)).x.clone()
        for number, trigger in enumerate(self.triggers):
            x[number :: len(self.triggers)] = trigger.stamp(x[number :: len(self.triggers)])
        return self.relabelled(x)
