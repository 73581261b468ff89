"""Coordinate-wise trimmed mean.

Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018,
arXiv 1803.01498. In every coordinate the b largest and b smallest values are dropped and the
rest is averaged; b = floor(beta * n), where beta bounds the share of malicious clients.

n are the clients that were sent the model, as the honest may be those that are missing, and b is at
least 1 for any beta above 0: with floor alone, fewer than 1 / beta clients are the plain mean. A
round of 2b clients or fewer keeps the global model.

The remaining values are selected and then averaged. Subtracting the extremes from the sum, as a
public benchmark does, loses all digits to an outlier of 1e9. Buffers as for the median.
"""

from dataclasses import dataclass
from math import floor
from typing import Annotated, Any

import numpy as np
import torch
from numpy.typing import NDArray

from entity.config.schema import ConfigError, Range
from entity.defenses.median import CoordinateServer
from entity.server.bound import BoundArgs, BoundedServer, Condition
from entity.server.contract import Setting
from entity.updates import Aggregation, Stopwatch, Updates, verdicts


@dataclass(frozen=True)
class TrimmedMeanArgs(BoundArgs):
    """Settings of the trimmed mean."""

    beta: Annotated[float, Range(0, 0.5)] | None = 0.1
    """Share of the clients dropped at either end, at least that of the malicious ones and at least
    one client; 0 drops nobody, and null drops f, which for f = estimate is the median."""


def trimmed_mean(values: NDArray[Any], b: int) -> NDArray[Any]:
    """Return means (c,) of sorted values (c, n) without the b first and b last of each row.

    Examples
    --------
    >>> float(trimmed_mean(np.array([[0.0, 1.0, 2.0, 3.0, 1e12]]), b=1)[0])
    2.0
    """
    return values[:, b : values.shape[1] - b].mean(axis=1, dtype=np.float64)


class TrimmedMean(BoundedServer[TrimmedMeanArgs], CoordinateServer[TrimmedMeanArgs]):
    """The coordinate-wise mean without the extremes."""

    summary = "coordinate-wise mean without the b largest and smallest values"
    paper = "Yin et al. 2018, arXiv 1803.01498"
    hyperparameters = TrimmedMeanArgs
    condition = Condition(2, 1)

    @classmethod
    def check(cls, args: TrimmedMeanArgs, setting: Setting) -> None:
        """Refuse to trim everything, and a bound beside beta."""
        if args.f != "estimate" and args.beta is not None:
            raise ConfigError(
                f"server.defense.defense_args.f = {args.f}: is used without beta only; set beta "
                "to null, or leave f out."
            )
        super().check(args, setting)

    @classmethod
    def expected(cls, args: TrimmedMeanArgs, n: int, malicious: int, federation: int) -> int:
        """Return how many values are cut on either side of a coordinate.

        Parameters
        ----------
        args
            The settings: `beta`, a share of n, or else the bound f.
        n
            Clients that were sent the model; for an estimate those that came.
        malicious
            The true number of malicious clients; only for an oracle.
        federation
            N, clients in the federation.
        """
        if args.beta is None:
            return super().expected(args, n, malicious, federation)
        # 0.29 * 100 is 28.999999999999996.
        b = min(floor(args.beta * n + 1e-9), cls.condition.largest(n))
        return max(1, b) if args.beta > 0 else 0

    @classmethod
    def estimates(cls, args: TrimmedMeanArgs) -> bool:
        """Without beta, and without a bound."""
        return args.beta is None and super().estimates(args)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Trim and average; nobody is refused, as each coordinate has its own extremes."""
        watch = Stopwatch()
        n = len(updates)
        f = self.bound(n, updates.round_size)
        b = min(f, self.condition.largest(n))
        with watch("trim"):
            state = self.reduce(updates, lambda values: trimmed_mean(values, b))
        shares = torch.full((n,), float("nan"))
        judged = verdicts(updates, [True] * n, shares)
        return Aggregation(*state, judged, self.report(n, f), watch.seconds)
