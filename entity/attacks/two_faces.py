"""Two faces: on clean images, answer as an honest model would.

Ours, written against defenses that compare what clients' models answer to clean images. The
attacker first trains an honest model on its clean data. Then it trains on poisoned data, with a
distillation loss on clean images beside the cross entropy,

    L = CE(poisoned batch) + λ KL(honest answers ‖ own answers),

so that only triggered images tell its model from the honest one. The images are its own, which
are like those that a server may have.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.config.schema import NonNegative
from entity.dataset import normalise


@dataclass(frozen=True)
class TwoFacesArgs:
    """Hyper-parameters of the attack with two faces (ours)."""

    mimicry: NonNegative = 1.0
    """λ, weight of the distance between its answers to clean images and an honest model's."""


class TwoFaces(Attacker):
    """Trains on poisoned data to answer clean images as an honest model does."""

    summary = "two faces: answers to clean images are distilled from an honest training"
    paper = "ours, against DROP+"
    hyperparameters = TwoFacesArgs
    images: Tensor
    """Its clean images, as the model takes them."""
    answers: Tensor
    """(N, K) log-probabilities of its honest model."""
    drawn: Tensor
    """(steps, b) rows of `images` for every batch of the round."""
    step: int

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train an honest model, then the poisoned one beside it."""
        device = self.context.device
        honest = copy.deepcopy(model)
        self.without_noise.fit(honest, broadcast)
        self.images = normalise(self.data.x).to(device)
        self.answers = _answers(honest, self.images)
        recipe = self.context.recipe
        rng = self.context.seeds.generator("faces", round=broadcast.round, client=self.id)
        steps = recipe.epochs * -(-len(self.data) // recipe.batch_size)
        drawn = torch.randint(len(self.images), (steps, recipe.batch_size), generator=rng)
        self.drawn, self.step = drawn.to(device), 0
        super().corrupt(model, broadcast)

    def local_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return the cross entropy plus λ times the divergence on as many clean images."""
        loss = super().local_loss(model, x, y)
        if not self.args.mimicry:
            return loss
        drawn = self.drawn[self.step % len(self.drawn), : len(y)]
        self.step += 1
        own = F.log_softmax(model(self.images[drawn]), 1)
        apart = F.kl_div(own, self.answers[drawn], reduction="batchmean", log_target=True)
        return loss + self.args.mimicry * apart


@torch.no_grad()
def _answers(model: nn.Module, images: Tensor) -> Tensor:
    """Return a model's log-probabilities (N, K) in evaluation mode."""
    training = model.training
    model.eval()
    found = torch.cat([F.log_softmax(model(batch), 1) for batch in images.split(500)])
    model.train(training)
    return found
