"""Neurotoxin: poison the coordinates that benign clients leave alone.

Zhang et al., "Neurotoxin: Durable Backdoors in Federated Learning", ICML 2022, arXiv 2206.10341.
The attacker takes the last global update it has seen as the benign gradient, blocks the top-k
share of the coordinates by its absolute value, and trains on poisoned data in the rest, which
later rounds are slow to overwrite.

Where we leave the paper: after every optimiser step the blocked coordinates are put back exactly,
as projecting the gradient alone lets momentum and weight decay move them. Without a last update
(round 1, or one that moved nothing) the mask comes from the client's own clean gradient at the
global model, in evaluation mode, so that BatchNorm statistics stay. (The official code takes it
from 30 other participants' clean data, a stronger attacker than the paper's.) All attackers saw
the same update, so with it they share one mask. They are told every global model, also where none
of them was drawn in the round before: in a federation that draws few clients, more than they would
know. The paper's PGD on top is off unless `neurotoxin_norm` is given.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entity.attacks.pgd import project
from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.config.schema import Fraction, Positive
from entity.training import cross_entropy


@dataclass(frozen=True)
class NeurotoxinArgs:
    """Hyper-parameters of Neurotoxin."""

    neurotoxin_top_k: Fraction = 0.05
    """Share k of the coordinates that is blocked; 0.01 to 0.1 in the paper."""
    neurotoxin_norm: Positive | None = None
    """Euclidean bound on the local update, kept by projection after every step; null is none."""


def top_share(reference: Tensor, share: float) -> Tensor:
    """Return the mask (P,) of the ⌈share * P⌉ largest absolute values, ties by lowest index.

    Examples
    --------
    >>> top_share(torch.tensor([1.0, -3.0, 2.0, -2.0, 0.0]), 0.4).tolist()
    [False, True, True, False, False]
    """
    size = reference.abs()
    count = math.ceil(share * len(size) - 1e-9)  # 0.07 * 100 is 7.000000000000001
    if count == 0:
        return torch.zeros(len(size), dtype=torch.bool)
    least = size.topk(count).values[-1]
    mask = size > least
    mask[(size == least).nonzero().flatten()[: count - int(mask.sum())]] = True
    return mask


class Neurotoxin(Attacker):
    """Trains on poisoned data outside the coordinates that move most."""

    summary = "Neurotoxin: poison only coordinates that the last global update barely moved"
    paper = "Zhang et al. 2022, arXiv 2206.10341"
    hyperparameters = NeurotoxinArgs
    watches_steps = True
    origin: list[Tensor]
    """The global parameters."""
    blocked: list[Tensor]
    """For every parameter, the mask of what must not move."""

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Choose the mask, and train."""
        mask = top_share(self.reference(model, broadcast), self.args.neurotoxin_top_k)
        self.origin = [parameter.detach().clone() for parameter in model.parameters()]
        self.blocked = [
            mask[slot.start : slot.stop].view(slot.shape).to(self.context.device)
            for slot in self.context.spec.parameters
        ]
        super().corrupt(model, broadcast)

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        """Put the blocked coordinates back, and stay within the norm bound."""
        parameters = list(model.parameters())
        for parameter, old, blocked in zip(parameters, self.origin, self.blocked, strict=True):
            parameter.copy_(torch.where(blocked, old, parameter))
        if self.args.neurotoxin_norm is not None:
            project(parameters, self.origin, self.args.neurotoxin_norm)

    def reference(self, model: nn.Module, broadcast: Broadcast) -> Tensor:
        """Return the benign gradient (P,) as the attacker knows it, up to sign and scale."""
        if broadcast.previous is not None:
            update = broadcast.state.weights - broadcast.previous
            if update.any():
                return update
        return self.clean_gradient(model, broadcast)

    def clean_gradient(self, model: nn.Module, broadcast: Broadcast) -> Tensor:
        """Return the gradient (P,) of the loss on the client's clean data."""
        model.eval()
        parameters = list(model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        rng = self.context.seeds.generator("clean gradient", round=broadcast.round, client=self.id)
        total = torch.zeros(self.context.spec.num_parameters)
        for x, y in self.data.batches(self.context.recipe.batch_size, 1, rng):
            loss = cross_entropy(model, x.to(self.context.device), y.to(self.context.device))
            slopes = iter(
                torch.autograd.grad(
                    loss * len(y), trained, allow_unused=True, materialize_grads=True
                )
            )
            parts = [next(slopes) if p.requires_grad else torch.zeros_like(p) for p in parameters]
            total += torch.cat([part.flatten() for part in parts]).cpu()
        return total / max(1, len(self.data))
