"""What the colluders of a round have beside its updates, and keep until the next one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from entity.client.client import Broadcast, Client
from entity.seeding import Seeds

CollusionMemory = Mapping[str, Tensor]
"""What colluders keep from round to round."""


@dataclass(frozen=True)
class Collusion:
    """The attackers' side of a round once all have trained."""

    args: Any
    """The attack's settings."""
    seeds: Seeds
    broadcast: Broadcast
    """The model that the round started from, and the one before."""
    memory: CollusionMemory
    """What they kept in their last round; {} before the first."""
    recruit: Callable[[int], Client]
    """Builds a colluder by its id, with its data: an instance of the attack."""
    new_model: Callable[[], nn.Module]
    """Builds a model to train, on the clients' device."""
