"""Disguised: in sight, and out of sight an honest update.

Ours, written against the judge of DROP+ (`server/judge.py`), which takes the smaller of two groups
for attackers if it has more in common than the other one where clean images see nothing. So the
attacker trains twice: on its clean data as an honest client, h, and on poisoned data in sight
(`attacks/in_sight.py`), p. With V the visible part, by its own clean images, it sends

    d = p |V h| / |p| + (h - V h),

which has out of sight what an honest update has, as much of it, and as much in common with others.
The server drops that part anyway.
"""

import copy

import torch
from torch import nn

from entity.attacks.in_sight import InSight
from entity.client.client import Broadcast
from entity.server.visible import visible_update


class Disguised(InSight):
    """Pushes in sight, and sends the rest of an honest update beside it."""

    summary = "disguised: in sight, and out of sight an honest update, against DROP+"

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train an honest model, then one in sight, and put both together."""
        honest, spec = copy.deepcopy(model), self.context.spec
        self.without_noise.fit(honest, broadcast)
        super().corrupt(model, broadcast)
        with torch.no_grad():
            state = spec.flatten(model)
            own, push = spec.flatten(honest).weights - self.origin, state.weights - self.origin
            shown = visible_update(own, self.looks)
            length = float(push.double().norm())
            size = float(shown.double().norm()) / length if length > 0 else 0.0
            sent = self.origin + size * push + (own - shown)
            spec.load(model, state._replace(weights=sent))
