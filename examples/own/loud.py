"""An own attack: train on poisoned data, and send a multiple of what comes out.

drop run --config mnist5k/undefended --plugins loud.py --attack.type loud --loudness 4
"""

from dataclasses import dataclass

from entity.client import Attacker, Broadcast
from entity.config.schema import Positive
from entity.layout import ModelState


@dataclass(frozen=True)
class LoudArgs:
    """Settings of the attack."""

    loudness: Positive = 3.0
    """What the poisoned update is multiplied with."""


class Loud(Attacker):
    """Local SGD on poisoned data, amplified. Only `craft` differs from BadNets."""

    summary = "example: train on poisoned data and send a multiple of the update"
    hyperparameters = LoudArgs

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Scale the parameters; statistics of BatchNorm are sent as they are."""
        start = broadcast.state.weights
        return trained._replace(weights=start + self.args.loudness * (trained.weights - start))


ATTACKS = {"loud": Loud}
