"""Norm clipping and weak differential privacy.

Sun et al., "Can You Really Backdoor Federated Learning?", 2019, arXiv 1911.07963. Every update is
scaled down to a norm of at most c before the mean; weak DP adds Gaussian noise to the result,
too little of it for a formal guarantee.

The paper's bounds (3, 5 and 10) belong to one network on EMNIST; the default here is the median
norm of the round, which fits any model and which fewer than half of the clients cannot raise
beyond an honest norm. (A public code takes the mean, which one attacker can raise at will.)
Noise goes to trainable parameters alone; BatchNorm statistics are clipped with their client and
never noised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entity.config.schema import NonNegative, Positive
from entity.server.contract import Needs
from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class NormClippingArgs:
    """Settings of norm clipping."""

    c: Positive | Literal["median"] = "median"
    """Largest norm of an update, or `median` of the round's norms. The paper: 3, 5, 10 on EMNIST;
    late rounds on CIFAR-10 need 0.2 to 1."""
    sigma: NonNegative = 0.0
    """Standard deviation of the noise on each parameter; weak DP in the paper is 0.025."""


def clip_factors(norms: Tensor, c: float) -> Tensor:
    """Return what scales each update (n,) down to norm c: min(1, c / norm), 1 for a zero update.

    Examples
    --------
    >>> clip_factors(torch.tensor([5.0, 0.5, 0.0]), c=1).tolist()
    [0.20000000298023224, 1.0, 1.0]
    """
    return torch.where(norms > c, c / norms, 1.0)


class NormClipping(StreamingServer[NormClippingArgs]):
    """The mean of updates of bounded norm, with noise if asked for."""

    summary = "norm clipping, and weak differential privacy with sigma above 0"
    paper = "Sun et al. 2019, arXiv 1911.07963"
    hyperparameters = NormClippingArgs
    streams_with = "with a number as c"

    @classmethod
    def needs(cls, args: NormClippingArgs) -> Needs:
        """Ask for single updates for the median only; clients can enforce a fixed bound."""
        adaptive = args.c == "median"
        return Needs(individual_updates=adaptive, honest_majority=adaptive)

    @classmethod
    def streams(cls, args: NormClippingArgs) -> bool:
        """With a fixed bound; the median needs all norms before the first update is clipped."""
        return args.c != "median"

    @property
    def scale(self) -> Callable[[float], float] | None:
        """Clip to the fixed bound."""
        c = self.args.c
        if c == "median":
            return None
        return lambda norm: float(clip_factors(torch.tensor(norm, dtype=torch.float64), c))

    def aggregate(self, updates: Updates) -> Aggregation:
        """Clip, average, add noise; nobody is refused."""
        watch = Stopwatch()
        everybody = torch.ones(len(updates), dtype=torch.bool)
        shares = self.shares(updates, everybody)
        with watch("clip"):
            norms = updates.norms
            c = float(norms.quantile(0.5)) if self.args.c == "median" else self.args.c
            factors = clip_factors(norms, c)
        with watch("average"):
            state = self.average_scaled(updates, shares, factors)
        if self.args.sigma > 0:
            with watch("noise"):
                rng = self.resources.seeds.generator("weak dp", round=updates.round)
                noise = updates.spec.trained(torch.randn(len(state.weights), generator=rng))
                noisy = state.weights + self.args.sigma * noise
                state = self.finish(state._replace(weights=noisy))
        judged = verdicts(updates, everybody.tolist(), shares * factors, scores=norms.tolist())
        numbers = {"clip": c, "clipped": float((factors < 1).sum())}
        return Aggregation(*state, judged, numbers, watch.seconds)
