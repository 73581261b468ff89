"""Noisy: hide what the attackers have in common under noise that each has for itself.

Ours, written against defenses that find attackers by how alike their updates are. The attacker
trains on poisoned data, adds noise that is orthogonal to its update and new in every round, and
shortens the sum to the update's own length:

    d' = (d + r ‖d‖ z) / √(1 + r²),  z a random direction with z · d = 0,

so that the cosine of two attackers' updates falls by 1 + r², and so does what they teach a round.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.config.schema import NonNegative
from entity.layout import ModelState


@dataclass(frozen=True)
class NoisyArgs:
    """Hyper-parameters of noisy attackers (ours)."""

    noise_ratio: NonNegative = 1.0
    """r, length of the noise over that of the update; 0 adds none."""


def hidden_in_noise(delta: Tensor, ratio: float, generator: torch.Generator) -> Tensor:
    """Return an update (P,) with orthogonal noise, of the same length, in float64.

    Parameters
    ----------
    delta
        (P,) the update.
    ratio
        Length of the noise over the update's.
    generator
        Draws the noise.

    Examples
    --------
    >>> sent = hidden_in_noise(torch.tensor([3.0, 4.0]), 1.0, torch.Generator().manual_seed(0))
    >>> f"{sent.norm():.4f}", f"{sent @ torch.tensor([0.6, 0.8]).double():.4f}"
    ('5.0000', '3.5355')
    """
    delta = delta.double()
    length = delta.norm()
    noise = torch.randn(len(delta), generator=generator, dtype=torch.float64)
    if length > 0:
        along = delta / length
        noise -= (noise @ along) * along
    size = noise.norm()
    if size <= 0:  # a single parameter has no room for it
        return delta
    return (delta + ratio * length / size * noise) / (1 + ratio**2) ** 0.5


class Noisy(Attacker):
    """Adds orthogonal noise of its own to the poisoned update."""

    summary = "noisy: orthogonal noise hides what the attackers have in common"
    paper = "ours, against DROP+"
    hyperparameters = NoisyArgs

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Add the noise."""
        if not self.args.noise_ratio:
            return trained
        rng = self.context.seeds.generator("hiding noise", round=broadcast.round, client=self.id)
        start = broadcast.state.weights.double()
        delta = trained.weights.double() - start
        moving = torch.ones(len(delta), dtype=torch.bool)
        for slot in self.context.spec.frozen:
            slot.of(moving).fill_(False)
        delta[moving] = hidden_in_noise(delta[moving], self.args.noise_ratio, rng)
        return trained._replace(weights=(start + delta).float())
