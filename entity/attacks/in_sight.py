"""In sight: a backdoor made of what clean images show, against DROP+.

Ours, written against our own defense. DROP+ takes of the mean's step only the part that its clean
images can see (`server/visible.py`). An attacker who knows it has clean images of its own, of the
same kind. So it trains on poisoned data and, every few steps and after the last, keeps only the
visible part of its update, by its own images: what it sends is what the server would take, and the
training goes on to make the best backdoor of that. What is left is lengthened to the length that
the last steps had before, so that it weighs as much as anybody's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.config.schema import Count, Positive
from entity.dataset import normalise
from entity.server.visible import View, views, visible_update


@dataclass(frozen=True)
class InSightArgs:
    """Hyper-parameters of the attack in sight (ours)."""

    sight_strength: Positive = 0.01
    """`strength` of DROP+ as the attacker believes it to be."""
    sight_images: Count = 300
    """Clean images of its own that it looks at; all, where it has fewer."""
    sight_frequency: Count = 8
    """Steps from one look to the next; there is always one after the last step."""


class InSight(Attacker):
    """Trains on poisoned data within what its own clean images show."""

    summary = "in sight: a backdoor within what clean images show, against DROP+"
    paper = "ours, against DROP+"
    hyperparameters = InSightArgs
    watches_steps = True
    origin: Tensor
    """(P,) the global weights."""
    looks: list[View]
    steps: int

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Look at clean images, train, and keep of the update what they show."""
        context = self.context
        rng = context.seeds.generator("images in sight", round=broadcast.round, client=self.id)
        drawn = torch.randperm(len(self.data), generator=rng)[: self.args.sight_images]
        images = normalise(self.data.x[drawn])
        self.looks = list(views(model, context.spec, images, self.args.sight_strength, rng))
        self.origin = broadcast.state.weights
        self.steps = 0
        super().corrupt(model, broadcast)
        self.keep_visible(model)

    def after_step(self, model: nn.Module) -> None:
        """Keep what clean images show, every `sight_frequency` steps."""
        self.steps += 1
        if self.steps % self.args.sight_frequency == 0:
            self.keep_visible(model)

    @torch.no_grad()
    def keep_visible(self, model: nn.Module) -> None:
        """Move the model to the visible part of its update, at the update's length."""
        state = self.context.spec.flatten(model)
        update = state.weights - self.origin
        seen = visible_update(update, self.looks)
        factor = float(update.double().norm() / seen.double().norm().clamp_min(1e-30))
        if not 0 < factor < 1e6:  # nothing is seen, or nothing has moved
            factor = 0.0
        self.context.spec.load(model, state._replace(weights=self.origin + factor * seen))
