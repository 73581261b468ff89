"""Model replacement: scale the poisoned update until it replaces the global model.

Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, arXiv 1807.00459. The
attacker trains X on poisoned data and sends `g + γ (X - g)`. With γ = n / η for n clients and
server rate η, a mean in which the others barely move any more becomes X itself.

Where we leave the paper's code: it scales BatchNorm statistics too, which makes variances
negative, and multiplies again by the number of attackers; here parameters alone are scaled, and
colluders share γ, so that the mean becomes the mean of their models. The paper stops early and
lowers the rate once the backdoor is learnt, and its code to a tenth after a fifth of the epochs and
again after four fifths; here epochs and rate are fixed.
"""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import nn

from entity.client.attacker import Attacker
from entity.client.client import Broadcast
from entity.config.schema import Count, Positive
from entity.layout import ModelState
from entity.seeding import Seeds
from entity.updates import Updates

Gamma = Positive | Literal["replace"]


@dataclass(frozen=True)
class ReplacementArgs:
    """Hyper-parameters of model replacement."""

    gamma: Gamma = "replace"
    """What the update is multiplied with, 1 to 100; `replace` takes n / (server rate * m) for m
    attackers among the n clients of the round, who are weighted alike."""
    replace_server_lr: Positive = 1.0
    """The server's learning rate as the attackers believe it to be; for `gamma` = replace."""
    poison_epochs: Count | None = None
    """Local epochs on poisoned data; null trains as long as everybody. The paper's code: 15."""
    poison_lr: Positive | None = None
    """Learning rate on poisoned data; null takes everybody's. The paper's code: 0.05."""


def scaled(state: ModelState, start: ModelState, factor: float) -> ModelState:
    """Return `start + factor * (state - start)` in the parameters, and the buffers as they are.

    Computed in float64: a large factor would multiply the rounding of the difference.

    Parameters
    ----------
    state, start
        The trained and the global model.
    factor
        What the update is multiplied with; negative reverses it.

    Examples
    --------
    >>> import torch
    >>> there = ModelState(torch.tensor([3.0, 1.0]), torch.tensor([0.5]))
    >>> scaled(there, ModelState(torch.ones(2), torch.ones(1)), 10)
    ModelState(weights=tensor([21.,  1.]), buffers=tensor([0.5000]))
    """
    origin = start.weights.double()
    return state._replace(weights=(origin + factor * (state.weights.double() - origin)).float())


class ModelReplacement(Attacker):
    """Trains on poisoned data and sends a multiple of the update."""

    summary = "model replacement: train on poisoned data, scale the update by gamma"
    paper = "Bagdasaryan et al. 2020, arXiv 1807.00459"
    hyperparameters: ClassVar[type[Any]] = ReplacementArgs

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train on the poisoned data, with the attacker's own rate and epochs if it has any."""
        recipe = self.context.recipe
        recipe = replace(
            recipe,
            lr=self.args.poison_lr or recipe.lr,
            epochs=self.args.poison_epochs or recipe.epochs,
        )
        self.train(model, broadcast, self.poisoned(), recipe)

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Scale by γ, where it is a number; `replace` waits until the round's size is known."""
        gamma = self.args.gamma
        if gamma in ("replace", 1):
            return trained
        return scaled(trained, broadcast.state, gamma)

    @classmethod
    def collude(cls, args: Any, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Scale by n / (η m); looks at the colluders' rows alone."""
        if args.gamma != "replace":
            return
        gamma = len(updates) / (args.replace_server_lr * len(malicious))
        for row in malicious:
            crafted = scaled(updates.state(row), updates.global_state, gamma)
            updates.weights[row] = crafted.weights

    @classmethod
    def colludes(cls, args: Any) -> bool:
        """With `replace`: the factor depends on the size of the round."""
        return args.gamma == "replace"
