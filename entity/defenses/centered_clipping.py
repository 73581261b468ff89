"""Centered clipping: updates are clipped around the last aggregate.

Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021,
arXiv 2012.10333. From the aggregate v of the round before, v <- v + mean_i clip(x_i - v, tau),
once or a few times: an attacker pulls by at most tau / n, and what honest clients share with the
last round is not clipped away. The paper's workers send momenta, m_i = (1 - beta) g_i + beta m_i,
so that attacks of many small steps stand out of the noise.

Where we leave the paper, and why:

- x_i is a client's update of the model after its local training, not one gradient; `momentum`
  above 0 keeps an average of every client's updates at the server, by client id, as its worker
  would. At 0 the clients' own momentum within their training is all there is;
- tau = 100 of the authors' code belongs to gradients of one network; `median`, the default, is the
  median distance from v in the round (ours), which fewer than half of the clients cannot raise
  beyond an honest one;
- the mean is weighted where `server.weighting` says so, and v does not contain the server's rate.

BatchNorm statistics are clipped with their client's update.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import torch
from torch import Tensor

from entity.config.schema import Count, Positive, Range
from entity.defenses.norm_clipping import clip_factors
from entity.layout import ModelState, blocks
from entity.server.averaging import step
from entity.server.buffers import moved
from entity.server.contract import Needs, Resources, Server
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class CenteredClippingArgs:
    """Settings of centered clipping."""

    tau: Positive | Literal["median"] = "median"
    """Largest distance from the last aggregate, or `median` of the round's (ours). The authors'
    code: 100 for gradients of a ResNet-20; tried 0.1, 10 and 1000."""
    iterations: Count = 1
    """Steps in a round; the authors' code: 1, tried up to 7."""
    momentum: Annotated[float, Range(0, 0.999)] = 0.0
    """beta, memory of a client's own updates; keeps a model for every client that was ever seen.
    The paper: 0.9 or 0.99 of gradients, a step."""


class Step(NamedTuple):
    """One step of centered clipping."""

    after: Tensor
    """(P,) float64, the next v."""
    distances: Tensor
    """(n,) of the rows from v."""
    factors: Tensor
    """(n,) what each difference was multiplied with."""
    tau: float


def centered_clip(
    rows: Tensor, centre: Tensor, shares: Tensor, tau: float | Literal["median"]
) -> Step:
    """Take one step v + sum_i shares_i clip(x_i - v, tau), in float64.

    Parameters
    ----------
    rows
        (n, P) x, what is averaged.
    centre
        (P,) v.
    shares
        (n,) convex weights.
    tau
        Largest distance, or `median` of the distances.

    Examples
    --------
    >>> rows, half = torch.tensor([[3.0, 4.0], [0.0, 1.0]]), torch.tensor([0.5, 0.5])
    >>> centered_clip(rows, torch.zeros(2), half, tau=1.0).after.float().tolist()
    [0.30000001192092896, 0.8999999761581421]
    """
    squares = torch.zeros(len(rows), dtype=torch.float64)
    for columns in blocks(rows.shape[1]):
        squares += (rows[:, columns].double() - centre[columns].double()).square().sum(1)
    distances = squares.sqrt()
    bound = float(distances.quantile(0.5)) if tau == "median" else tau
    factors = clip_factors(distances, bound)
    pulls = shares.double() * factors
    after = torch.empty(rows.shape[1], dtype=torch.float64)
    for columns in blocks(rows.shape[1]):
        start = centre[columns].double()
        after[columns] = start + pulls @ (rows[:, columns].double() - start)
    return Step(after, distances, factors, bound)


class CenteredClipping(Server[CenteredClippingArgs]):
    """The mean of differences from the last aggregate, of bounded length."""

    summary = "centered clipping: updates clipped around the last round's aggregate"
    paper = "Karimireddy et al. 2021, arXiv 2012.10333"
    remembers = "each client's average of its updates, with momentum"
    hyperparameters = CenteredClippingArgs

    def __init__(self, args: CenteredClippingArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self.centre = torch.zeros(resources.spec.num_parameters, dtype=torch.float64)
        """(P,) the last aggregate, an update; zero before the first."""
        self.momenta: dict[ClientId, Tensor] = {}
        """(P,) each client's average of its updates, where they have a memory; float64, as the
        updates of a liar may be longer than float32 holds."""

    @classmethod
    def needs(cls, args: CenteredClippingArgs) -> Needs:
        """Ask for an honest majority; a fixed bound and one step can be enforced by the clients."""
        single = args.tau == "median" or args.iterations > 1 or args.momentum > 0
        return Needs(
            client_identity=args.momentum > 0, individual_updates=single, honest_majority=True
        )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Step from the last aggregate towards the clients'; nobody is refused."""
        watch = Stopwatch()
        everybody = torch.ones(len(updates), dtype=torch.bool)
        shares = self.shares(updates, everybody)
        if shares.sum() == 0:  # nobody has registered a sample
            shares = everybody / len(updates)
        start = updates.global_weights.double()
        with watch("clip"):
            # Distances of models from g + v are those of updates from v, without a second matrix.
            rows = self._remembered(updates) if self.args.momentum else updates.weights
            origin = torch.zeros_like(start) if self.args.momentum else start
            found = centered_clip(rows, origin + self.centre, shares, self.args.tau)
            scores = found.distances.tolist()
            for _ in range(self.args.iterations - 1):
                found = centered_clip(rows, found.after, shares, self.args.tau)
            self.centre = found.after - origin
        factors = found.factors
        with watch("average"):
            end = (start + self.centre).float()
            weights = step(updates.global_weights, end, self.resources.averaging.server_lr)
            buffers = self._buffers(updates, shares, factors)
            state = self.finish(ModelState(weights, buffers))
        numbers = {"tau": found.tau, "clipped": float((factors < 1).sum())}
        judged = verdicts(updates, everybody.tolist(), shares * factors, scores=scores)
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _remembered(self, updates: Updates) -> Tensor:
        """Return the clients' momenta (n, P) with this round's updates in them."""
        beta = self.args.momentum
        for row, client in enumerate(updates.client_ids):
            delta = updates.weights[row].double() - updates.global_weights.double()
            before = self.momenta.get(client)
            self.momenta[client] = delta if before is None else (1 - beta) * delta + beta * before
        return torch.stack([self.momenta[client] for client in updates.client_ids])

    def _buffers(self, updates: Updates, shares: Tensor, factors: Tensor) -> Tensor:
        if updates.buffers.shape[1] == 0:
            return updates.global_buffers
        clipped = moved(updates.buffers, updates.global_buffers, factors, updates.spec.counters)
        return self.combine_buffers(replace(updates, buffers=clipped), shares)

    def pardon(self, client: ClientId) -> str:
        """Forget a client's momentum: its next update is taken as if it were its first."""
        return "" if self.momenta.pop(client, None) is None else "its momentum"

    def state_dict(self) -> dict[str, Any]:
        """Return the last aggregate and the momenta."""
        clients, momenta = list(self.momenta), list(self.momenta.values())
        return {"centre": self.centre, "clients": clients, "momenta": momenta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.centre = state["centre"].double()
        momenta = [momentum.double() for momentum in state["momenta"]]
        self.momenta = dict(zip(state["clients"], momenta, strict=True))
