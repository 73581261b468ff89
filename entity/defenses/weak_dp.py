"""Weak differential privacy: updates of bounded norm, and Gaussian noise on their mean.

Sun et al., "Can You Really Backdoor Federated Learning?", 2019, arXiv 1911.07963. It is norm
clipping with noise, too little of it for a formal guarantee, but more than a backdoor survives.
The computation is that of `norm_clipping`; the method has a name of its own here, as it has in the
literature, and noise by default.

- The paper's bounds, and its noise of 0.025, belong to one small network on EMNIST. The default
  bound is the round's median norm; the default noise is a tenth of the paper's, as it adds up over
  rounds and is felt the more, the smaller a network's weights are. On `mnist5k` it is 0.01.
- The authors' code gives the noise as a factor: its standard deviation on the mean is that times
  the bound, divided by the clients of a round. Here, as in norm clipping, it is given as it is.
- Public codes add the noise to single clients' models, and some send them without it; ours is on
  the aggregate, on trainable parameters alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from entity.config.schema import Positive
from entity.defenses.norm_clipping import NormClipping, NormClippingArgs
from entity.server.contract import Needs, Resources
from entity.server.streaming import StreamingServer
from entity.updates import Aggregation, Updates


@dataclass(frozen=True)
class WeakDpArgs:
    """Settings of weak differential privacy."""

    norm_bound: Positive | Literal["median"] = "median"
    """Largest norm of an update, or `median` of the round's norms. Paper: 3, 5, 10 on EMNIST."""
    sigma: Positive = 0.0025
    """Standard deviation of the noise on each parameter of the mean; 0.025 in the paper."""

    @property
    def clipping(self) -> NormClippingArgs:
        """The same, as norm clipping calls it."""
        return NormClippingArgs(self.norm_bound, self.sigma)


class WeakDp(StreamingServer[WeakDpArgs]):
    """The mean of updates of bounded norm, with noise."""

    summary = "weak differential privacy: updates of bounded norm, noise on their mean"
    paper = "Sun et al. 2019, arXiv 1911.07963"
    hyperparameters = WeakDpArgs
    streams_with = "with a number as norm_bound"

    def __init__(self, args: WeakDpArgs, resources: Resources) -> None:
        super().__init__(args, resources)
        self._rule = NormClipping(args.clipping, self.resources)

    @classmethod
    def needs(cls, args: WeakDpArgs) -> Needs:
        """Ask for what norm clipping needs."""
        return NormClipping.needs(args.clipping)

    @classmethod
    def streams(cls, args: WeakDpArgs) -> bool:
        """With a fixed bound, as norm clipping."""
        return NormClipping.streams(args.clipping)

    @property
    def scale(self) -> Callable[[float], float] | None:
        """Clip to the fixed bound."""
        return self._rule.scale

    def aggregate(self, updates: Updates) -> Aggregation:
        """Clip, average, add noise; nobody is refused."""
        return self._rule.aggregate(updates)
