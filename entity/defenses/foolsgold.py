"""FoolsGold: clients whose update histories are too alike lose their weight.

Fung, Yoon and Beschastnikh, "Mitigating Sybils in Federated Learning Poisoning", 2018, arXiv
1808.04866. Sybils share one aim, so the sums of their updates over the rounds point the same way,
while honest clients with different data differ. A client's weight falls with its largest cosine
similarity to another, honest ones are pardoned, and a logit pushes weights to 0 or 1.

- The history is kept by client id. (Public codes keep it by the position in the round.)
- The paper adds sum_i w_i delta_i, which is right for gradients; with model updates that is a
  multiple of a mean, so `normalise = weights` divides by sum_i w_i. The original's code takes
  0.5 / n and leaves out the server's rate.
- As in the authors' code, similarity to oneself counts as 0, so that negative ones do, too.
- Similarities are 1 at 1e-6 from it: rounding must not tell identical histories apart, and the
  authors' division by the largest weight is 0 / 0 for them; here all weights are 0 then.
- The paper's filter by the importance of features is left out; sample counts play no part.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Positive
from entity.layout import Slot
from entity.models import head_of
from entity.server.contract import Needs, Resources, Server
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class FoolsGoldArgs:
    """Settings of FoolsGold."""

    features: Literal["head", "all"] = "head"
    """Parameters that histories are kept of: the output layer, as in the paper, or all of them,
    which keeps a whole model for every client that was ever seen."""
    kappa: Positive = 1.0
    """Confidence: steepness of the logit; larger pushes weights further to 0 and 1."""
    normalise: Literal["weights", "round", "none"] = "weights"
    """Divide the weighted sum of updates by the sum of weights, by n, or, as the paper, not."""


def foolsgold_weights(cosines: Tensor, kappa: float = 1.0) -> Tensor:
    """Return the clients' learning rates (n,), from 0 to 1.

    Parameters
    ----------
    cosines
        (n, n) cosine similarities of the clients' histories, 0 where one is zero.
    kappa
        Steepness of the logit.

    Examples
    --------
    >>> history = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    >>> foolsgold_weights(history @ history.T).tolist()
    [0.0, 0.0, 1.0, 1.0]
    """
    similar = cosines.double().clone().fill_diagonal_(0)
    most = similar.amax(1)
    pardoned = torch.where(most[None, :] > most[:, None], most[:, None] / most[None, :], 1)
    alpha = 1 - (similar * pardoned).amax(1).clamp(0, 1)
    alpha = torch.where(alpha > 1e-6, alpha, 0)
    if alpha.max() == 0:
        return alpha
    alpha = (alpha / alpha.max()).clamp_max(0.99)
    return (kappa * (alpha.logit() + 0.5)).clamp(0, 1)


class FoolsGold(Server[FoolsGoldArgs]):
    """An average that leaves out clients with too similar histories."""

    remembers = "the sum of its updates"
    summary = "FoolsGold: less weight for clients whose update histories are alike"
    paper = "Fung et al. 2018, arXiv 1808.04866"
    hyperparameters = FoolsGoldArgs
    by_majority = False
    revision = 2

    def __init__(self, args: FoolsGoldArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.history: dict[ClientId, Tensor] = {}
        """Sum of each client's updates, in the chosen features; float64, as two updates of float32
        may overflow, and an infinite history would be like any other for ever."""
        self.slots = resources.spec.parameters if args.features == "all" else self._head()

    def _head(self) -> tuple[Slot, ...]:
        resources = self.resources
        try:
            name, head = head_of(resources.build(resources.seeds.generator("scratch")))
        except ValueError as error:
            raise ConfigError(
                f"server.defense.defense_args.features = head: {error}; use all."
            ) from error
        parts = dict(head.named_parameters(recurse=False))
        return tuple(resources.spec.slot(f"{name}.{part}") for part in parts)

    @classmethod
    def needs(cls, args: FoolsGoldArgs) -> Needs:
        """Single updates and who sent them."""
        return Needs(client_identity=True, individual_updates=True)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Book the updates, weigh the clients by their histories, add up."""
        watch = Stopwatch()
        with watch("history"):
            histories = self._booked(updates)
        with watch("weigh"):
            # The histories take the place of the models, for their cosines in blocks.
            origin = torch.zeros(histories.shape[1], dtype=histories.dtype)
            like = replace(updates, weights=histories, global_weights=origin)
            rates = foolsgold_weights(like.cosines, self.args.kappa)
        total = float(rates.sum())
        shares = rates / total if total > 0 else rates
        factor = {"weights": 1.0, "round": total / len(updates), "none": total}[self.args.normalise]
        with watch("average"):
            state = self.average_scaled(updates, shares, torch.full_like(shares, factor))
        accepted: list[bool] = (rates > 0).tolist()
        reasons = dict.fromkeys(range(len(updates)), "history too much like another client's")
        judged = verdicts(updates, accepted, shares, scores=rates.tolist(), reasons=reasons)
        return Aggregation(*state, judged, {"sum_of_rates": total}, watch.seconds)

    def _booked(self, updates: Updates) -> Tensor:
        for row, client in enumerate(updates.client_ids):
            moved = torch.cat(
                [
                    updates.weights[row, slot.start : slot.stop].double()
                    - updates.global_weights[slot.start : slot.stop].double()
                    for slot in self.slots
                ]
            )
            if client in self.history:
                moved += self.history[client]
            self.history[client] = moved
        return torch.stack([self.history[client] for client in updates.client_ids])

    def pardon(self, client: ClientId) -> str:
        """Forget a client's history: its next update is compared as if it were its first."""
        return "" if self.history.pop(client, None) is None else "a history of updates"

    def state_dict(self) -> dict[str, Any]:
        """Return the histories."""
        return {"clients": list(self.history), "histories": list(self.history.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        histories = [history.double() for history in state["histories"]]
        self.history = dict(zip(state["clients"], histories, strict=True))
