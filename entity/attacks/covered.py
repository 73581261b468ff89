"""Covered: in sight, and what is left of the push out of sight drowned in agreed noise.

Ours, written against the judge of DROP+ (`server/judge.py`), which takes a group of clients for
attackers if they have more in common than others where clean images see nothing. Attackers in
sight (`attacks/in_sight.py`) take off what their updates have in common there, and add noise that
sums to zero over them:

    d_i' = √(1 - s) (d_i - mean_j h_j) + √s z_i,   Σ z_i = 0,

layer by layer, with h the hidden part of an update and z in the hidden part alone. The server
drops the noise anyway, so that it costs the attack only the length of its push. The DROP+ of
revision 4 found nothing in common, and never refused anybody.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from entity.attacks.in_sight import InSight, InSightArgs
from entity.client.collusion import Collusion, CollusionMemory
from entity.config.schema import Range
from entity.dataset import normalise
from entity.server.visible import View, views
from entity.updates import Updates, finite_rows


@dataclass(frozen=True)
class CoveredArgs(InSightArgs):
    """Hyper-parameters of covered attackers (ours)."""

    cover_share: Annotated[float, Range(0, 1)] = 0.5
    """Share of the squared length of an update that is noise."""


class Covered(InSight):
    """Pushes in sight, with noise of zero sum where clean images see nothing."""

    summary = "covered: in sight, and noise of zero sum where clean images see nothing"
    paper = "ours, against DROP+"
    hyperparameters = CoveredArgs

    @classmethod
    def conspire(
        cls, updates: Updates, malicious: list[int], collusion: Collusion
    ) -> CollusionMemory:
        """Look at the images of all, and cover what the updates have in common."""
        args: CoveredArgs = collusion.args
        malicious = [row for row in finite_rows(updates) if row in malicious]
        if len(malicious) < 2:  # one has nothing in common, and no noise of zero sum
            return {}
        held = [collusion.recruit(int(updates.client_ids[row])).data.x for row in malicious]
        model = collusion.new_model()
        updates.spec.load(model, updates.global_state)
        rng = collusion.seeds.generator("cover", round=updates.round)
        of = views(model, updates.spec, normalise(torch.cat(held)), args.sight_strength, rng)
        sent = updates.weights[malicious] - updates.global_weights
        cover(sent, list(of), args.cover_share, rng)
        updates.weights[malicious] = updates.global_weights + sent
        return {}


def cover(sent: Tensor, of: list[View], share: float, generator: torch.Generator) -> None:
    """Cover updates (n, P) of attackers, in place.

    Parameters
    ----------
    sent
        (n, P) differences of weights.
    of
        The model's views, as the attackers have them.
    share
        Of the squared length of the covered updates that is noise.
    generator
        Draws it.
    """
    for view in of:
        own = view.of(sent)
        hidden = own - view.visible(own)
        noise = torch.randn(own.shape, generator=generator)
        for _ in range(3):  # the ridge leaves a little of it in sight each time
            noise = noise - view.visible(noise)
        noise = noise - noise.mean(0)
        size = own.flatten(1).norm(dim=1).mean() / noise.flatten(1).norm(dim=1).mean().clamp_min(
            1e-30
        )
        parts = (1 - share) ** 0.5 * (own - hidden.mean(0)) + share**0.5 * size * noise
        for row, part in zip(sent, parts, strict=True):
            view.put(row, part)
