"""Sign flipping: send the honest update backwards.

The oldest Byzantine attack on learning; in this form Li et al., "RSA: Byzantine-Robust Stochastic
Aggregation Methods for Distributed Learning from Heterogeneous Datasets", AAAI 2019,
arXiv 1811.03761. Every attacker sends -s times the update that it trained honestly, and knows
nothing of anybody else. BatchNorm statistics are sent as they are: flipped they would be negative.
"""

from dataclasses import dataclass

from entity.attacks.model_replacement import scaled
from entity.client.client import Broadcast
from entity.client.untargeted import Untargeted
from entity.config.schema import Positive
from entity.layout import ModelState


@dataclass(frozen=True)
class SignFlipArgs:
    """Hyper-parameters of sign flipping."""

    flip_scale: Positive = 1.0
    """s, what the reversed update is multiplied with; 1 to 10 in the literature."""


class SignFlip(Untargeted):
    """Honest training, reversed."""

    summary = "sign flipping: send -s times the honest update"
    paper = "Li et al. 2019, arXiv 1811.03761"
    hyperparameters = SignFlipArgs

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Return the global model minus s times the honest update."""
        return scaled(trained, broadcast.state, -self.args.flip_scale)
