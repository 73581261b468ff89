"""Random aggregation: the clients' mean with weights drawn by lot.

A baseline of the original DROP code, without a paper: whatever a defense gains over it, it gains
by its choice of clients and not by averaging unevenly. Every client draws u from U(0, 1); the
weights are u / sum(u) or softmax(u), for the whole model or anew for every parameter tensor.

Where we leave the original code, and why:

- a client's draws hang on its id and the round, so they do not depend on who else is there;
- buffers share one draw in the layerwise mode; the original draws for each buffer, which takes a
  BatchNorm layer's mean and its variance from different mixtures.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Count
from entity.layout import ModelState
from entity.server.averaging import convex, step
from entity.server.contract import Needs, Server, Setting
from entity.updates import Aggregation, Stopwatch, Updates, Verdict, rows_by_id, verdicts


@dataclass(frozen=True)
class RandomAggregationArgs:
    """Settings of random aggregation; names and defaults are the original's."""

    softmax: bool = False
    """Weights are the softmax of the draws, nearly even; else the draws over their sum."""
    granularity: Literal["client", "layer"] = "client"
    """One weight for a client's whole model, or one for each of its parameter tensors."""
    top_k: Count | None = None
    """Give weight to the this many highest draws only; null to all."""


class RandomAggregation(Server[RandomAggregationArgs]):
    """A mean with random weights."""

    summary = "Random aggregation: the clients' mean with random weights, a sanity baseline"
    paper = "DROP's baseline, 2025, arXiv 2502.07011"
    hyperparameters = RandomAggregationArgs
    robust = False

    @classmethod
    def needs(cls, args: RandomAggregationArgs) -> Needs:
        """Ask for single updates: a random sum of a round cannot be formed from its sum."""
        return Needs(individual_updates=True)

    @classmethod
    def check(cls, args: RandomAggregationArgs, setting: Setting) -> None:
        """Refuse more winners than clients."""
        if args.top_k is not None and args.top_k > setting.round_size:
            raise ConfigError(
                f"server.defense.defense_args.top_k = {args.top_k}: is more than "
                f"federation.round_size = {setting.round_size}; lower it."
            )

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average with the round's draws."""
        watch = Stopwatch()
        slots = updates.spec.parameters
        draws = self._draws(updates, 1 + len(slots))
        order = rows_by_id(updates.client_ids)
        first, *layers = [
            random_shares(column, order, self.args.softmax, self.args.top_k) for column in draws.T
        ]
        if self.args.granularity == "client":
            with watch("average"):
                state = self.average(updates, first)
            accepted = (first > 0).tolist()
            return Aggregation(
                *state, self._verdicts(updates, accepted, first), seconds=watch.seconds
            )
        with watch("average"):
            weights = torch.empty_like(updates.global_weights)
            for slot, shares in zip(slots, layers, strict=True):
                columns = slice(slot.start, slot.stop)
                weights[columns] = convex(updates.weights[:, columns], shares)
            weights = step(updates.global_weights, weights, self.resources.averaging.server_lr)
            buffers = self.combine_buffers(updates, first)
            state = self.finish(ModelState(weights, buffers))
        accepted = (torch.stack(layers) > 0).any(0).tolist()
        no_share = torch.full((len(updates),), float("nan"))
        return Aggregation(
            *state, self._verdicts(updates, accepted, no_share), seconds=watch.seconds
        )

    def _draws(self, updates: Updates, count: int) -> Tensor:
        """Draw (n, count) float64 from U(0, 1), a row from each client's own stream."""
        seeds = self.resources.seeds
        return torch.stack(
            [
                torch.rand(
                    count,
                    dtype=torch.float64,
                    generator=seeds.generator(
                        "random aggregation", round=updates.round, client=client
                    ),
                )
                for client in updates.client_ids
            ]
        )

    def _verdicts(
        self, updates: Updates, accepted: list[bool], shares: Tensor
    ) -> tuple[Verdict, ...]:
        reason = f"not among the {self.args.top_k} highest draws"
        reasons = dict.fromkeys(range(len(updates)), reason)
        return verdicts(updates, accepted, shares, reasons=reasons)


def random_shares(draws: Tensor, order: list[int], softmax: bool, top_k: int | None) -> Tensor:
    """Turn draws (n,) into convex weights (n,).

    Parameters
    ----------
    draws
        Numbers from U(0, 1).
    order
        Rows in the order that ties go by.
    softmax
        exp(u) instead of u before the normalisation.
    top_k
        Keep only this many of the highest, in their proportions.

    Examples
    --------
    >>> random_shares(torch.tensor([0.2, 0.6, 0.2]), [0, 1, 2], softmax=False, top_k=2)
    tensor([0.2500, 0.7500, 0.0000])
    """
    raw = draws.softmax(0) if softmax else draws.clone()
    if top_k is not None:
        losers = sorted(order, key=lambda row: -float(draws[row]))[top_k:]
        raw[losers] = 0
    total = raw.sum()
    return raw / total if total > 0 else torch.full_like(raw, 1 / len(raw))
