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

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Be a bait, or attack in sight."""
        if self.plan.rank < self.args.baits:
            self.honest.fit(model, broadcast)
            self._show(model, broadcast)
        else:
            super().corrupt(model, broadcast)

    @torch.no_grad()
    def _show(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Add the direction of all baits, tensor by tensor, at the update's length."""
        spec, share = self.context.spec, self.args.bait_share
        state, start = spec.flatten(model), broadcast.state.weights
        sent = state.weights - start
        direction = torch.randn(sent.shape, generator=self.context.seeds.generator("bait"))
        for slot in spec.parameters:
            own, shown = slot.of(sent), slot.of(direction)
            shown = shown * (own.norm() / shown.norm().clamp_min(1e-30))
            own.copy_((1 - share) ** 0.5 * own + share**0.5 * shown)
        spec.load(model, state._replace(weights=start + sent))
