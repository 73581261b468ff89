"""Bait: some attackers are there to be found, so that the others are not looked for.

Ours, written against defenses that split clients into two groups. The baits train honestly and add
a direction that means nothing, the same for all of them and in every round, so that they are the
smaller group. The others attack in sight (`attacks/in_sight.py`). The DROP+ of revision 4 looked
for one coalition: it refused the baits, and nobody else.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import nn

from entity.attacks.in_sight import InSight, InSightArgs
from entity.client.client import Broadcast
from entity.config.schema import Count, Range
from entity.layout import ModelState


@dataclass(frozen=True)
class BaitArgs(InSightArgs):
    """Hyper-parameters of an attack with baits (ours)."""

    baits: Count = 2
    """How many attackers are baits, the first by rank."""
    bait_share: Annotated[float, Range(0, 1)] = 0.6
    """Share of the squared length of a bait's update that means nothing."""


class Bait(InSight):
    """Pushes in sight, while others of the attackers openly push something else."""

    summary = "bait: some attackers are there to be found, the others push in sight"
    paper = "ours, against DROP+"
    hyperparameters = BaitArgs

    @property
    def bait(self) -> bool:
        """Whether it is one of the baits."""
        return self.plan.rank < self.args.baits

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train honestly as a bait, else in sight."""
        if self.bait:
            self.honest.fit(model, broadcast)
        else:
            super().corrupt(model, broadcast)

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Add the direction of all baits, tensor by tensor, at the update's length."""
        if not self.bait:
            return trained
        spec, share, start = self.context.spec, self.args.bait_share, broadcast.state.weights
        sent = trained.weights - start
        direction = torch.randn(sent.shape, generator=self.context.seeds.generator("bait"))
        for slot in spec.parameters:
            own, shown = slot.of(sent), slot.of(direction)
            shown = shown * (own.norm() / shown.norm().clamp_min(1e-30))
            own.copy_((1 - share) ** 0.5 * own + share**0.5 * shown)
        return trained._replace(weights=start + sent)
