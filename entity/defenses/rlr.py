"""Robust learning rate: reverse the coordinates that too few clients agree on.

Ozdayi, Kantarcioglu and Gel, "Defending against Backdoors in Federated Learning with Robust
Learning Rate", AAAI 2021, arXiv 2007.03767. Each coordinate of the mean update keeps its
direction where the signs of the updates sum to at least theta in absolute value, and is
subtracted instead of added elsewhere.

A round of fewer clients than theta keeps the global model: even if all of them agreed, every
coordinate would be reversed. The rule is applied to the mean; the paper also combines it with
others. Buffers are averaged as ever: a reversed variance could become negative (the original's
helper reverses them, too).

The authors' runs have theta 4 of 10 clients, 8 of 40 and 8 of some 33, each with one malicious
client in ten: within their own bounds there, and outside of them where four of ten are malicious.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from entity.config.schema import ConfigError, Count
from entity.layout import ModelState, blocks
from entity.server.averaging import convex, step
from entity.server.contract import Needs, Server, Setting
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class RobustLearningRateArgs:
    """Settings of the robust learning rate."""

    theta: Count | None = None
    """Agreement that a coordinate needs, in clients: of n, k of them malicious, between k + 1 and
    n - k. Null is half of those that came, rounded up, which is in there for every k below half."""


def sign_votes(weights: Tensor, origin: Tensor) -> Tensor:
    """Return |sum_i sign(weights_i - origin)| (P,) of weights (n, P); an unmoved weight is no vote.

    Examples
    --------
    >>> sign_votes(torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 0.0]]), torch.zeros(2)).tolist()
    [3, 0]
    """
    votes = torch.empty(len(origin), dtype=torch.int64)
    for columns in blocks(len(origin)):
        block, start = weights[:, columns], origin[columns]
        votes[columns] = (block > start).sum(0) - (block < start).sum(0)
    return votes.abs()


class RobustLearningRate(Server[RobustLearningRateArgs]):
    """The mean update, reversed in the coordinates without agreement."""

    summary = "RLR: reverse the coordinates whose signs too few clients agree on"
    paper = "Ozdayi et al. 2021, arXiv 2007.03767"
    hyperparameters = RobustLearningRateArgs
    revision = 2

    @classmethod
    def needs(cls, args: RobustLearningRateArgs) -> Needs:
        """Ask for no single update (sums of signs do), but for a bound to place theta by.

        Half of the clients needs none.
        """
        return Needs(honest_majority=args.theta is None, malicious_bound=args.theta is not None)

    @classmethod
    def check(cls, args: RobustLearningRateArgs, setting: Setting) -> None:
        """Refuse a threshold that no coordinate can reach."""
        n = setting.round_size
        if args.theta is not None and args.theta > n:
            raise ConfigError(
                f"server.defense.defense_args.theta = {args.theta}: with {n} clients in the round "
                f"every coordinate would be reversed; lower it to at most {n}, or raise "
                "federation.round_size."
            )

    def too_few(self, came: int, asked: int) -> str:
        """Refuse a threshold that the clients who came cannot reach."""
        theta = self.args.theta
        if theta is None or came >= theta:
            return super().too_few(came, asked)
        return f"{came} of {asked} clients are left, and theta = {theta} needs as many to agree"

    def aggregate(self, updates: Updates) -> Aggregation:
        """Average, and reverse where the votes say so; nobody is refused."""
        watch = Stopwatch()
        n = len(updates)
        everybody = torch.ones(n, dtype=torch.bool)
        shares = self.shares(updates, everybody)
        theta = self.args.theta or n - n // 2
        with watch("vote"):
            reversed_ = sign_votes(updates.weights, updates.global_weights) < theta
        with watch("average"):
            state = self._reversed_mean(updates, shares, reversed_)
        unshared = torch.full((n,), float("nan"))
        judged = verdicts(updates, everybody.tolist(), unshared)
        numbers = {"theta": float(theta), "reversed": float(reversed_.float().mean())}
        return Aggregation(*state, judged, numbers, watch.seconds)

    def _reversed_mean(self, updates: Updates, shares: Tensor, reversed_: Tensor) -> ModelState:
        if shares.sum() == 0:
            return updates.global_state
        rate = self.resources.averaging.server_lr
        start, mean = updates.global_weights, convex(updates.weights, shares)
        weights = torch.where(reversed_, step(start, mean, -rate), step(start, mean, rate))
        return self.finish(ModelState(weights, self.combine_buffers(updates, shares)))
