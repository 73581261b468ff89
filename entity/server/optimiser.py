"""Optimisers of the server: the step that a defense answers is their gradient.

FedAvgM: Hsu, Qi and Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated
Visual Classification", 2019, arXiv 1909.06335. FedAdam and FedYogi: Reddi et al., "Adaptive
Federated Optimization", ICLR 2021, arXiv 2003.00295. What the defense answers, less the global
model, is the pseudo-gradient Delta: what the defense clips, noises or reverses is in it. FedAvgM
adds it to a velocity, which is the step; the others divide its moving average by the root of a
second moment, per coordinate.

Where we leave the papers, public codes (Flower's among them), and why:

- only trainable weights are stepped; BatchNorm statistics and counters are what `bn_policy` makes
  of them. Flower's FedAvgM, FedAdam and FedYogi step these, too, so that a variance may become
  negative and a counter a fraction;
- FedAdam has no correction of the bias, and second moments start at tau^2, both as in the paper.
  The authors' code corrects, by Keras' Adam, and Flower's by one round too many; both start at 0;
- FedAvgM's server rate is a setting; Hsu et al. keep it at 1, and measure Nesterov's variant of the
  momentum that they write down, which is `nesterov`;
- moments are float64: the square of a huge weight that an attacker sends overflows float32, after
  which a coordinate never moves again;
- a round that keeps the global model, or accepts nobody, is no step: no velocity carries on what
  nobody stands for. A model that replaces the global one, as DROP's student does, is taken as it
  is, and the moments begin anew: they are of steps that it is to forget.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Name = Literal["fedavgm", "fedadam", "fedyogi"]


@dataclass(frozen=True)
class OptimiserArgs:
    """Settings of a server's optimiser; its rate is the averaging's `server_lr`."""

    name: Name
    beta1: float = 0.9
    """What the velocity, or the first moment, keeps of itself in a round."""
    beta2: float = 0.99
    """What the second moment keeps of itself (FedAdam, FedYogi)."""
    tau: float = 1e-3
    """Added to the root of the second moment (FedAdam, FedYogi); the larger, the less adaptive."""
    nesterov: bool = False
    """Look a round ahead (FedAvgM)."""


class Moments(NamedTuple):
    """What lives across rounds."""

    first: Tensor
    """(P,) float64, the velocity of FedAvgM."""
    second: Tensor
    """(P,) float64; empty for FedAvgM."""


def velocity(first: Tensor, delta: Tensor, beta: float) -> Tensor:
    """Return beta v + Delta (P,), the velocity of FedAvgM.

    Parameters
    ----------
    first
        (P,) the velocity before, v.
    delta
        (P,) the pseudo-gradient.
    beta
        Momentum.

    Examples
    --------
    >>> velocity(torch.tensor([1.0]), torch.tensor([2.0]), 0.5)
    tensor([2.5000])
    """
    return beta * first + delta


def second_of_adam(second: Tensor, delta: Tensor, beta: float) -> Tensor:
    """Return beta v + (1 - beta) Delta^2 (P,); parameters as of `second_of_yogi`."""
    return beta * second + (1 - beta) * delta.square()


def second_of_yogi(second: Tensor, delta: Tensor, beta: float) -> Tensor:
    """Return v - (1 - beta) Delta^2 sign(v - Delta^2) (P,), which is never negative.

    Parameters
    ----------
    second
        (P,) the second moment before, v.
    delta
        (P,) the pseudo-gradient.
    beta
        What the moment keeps of itself.

    Examples
    --------
    >>> second_of_yogi(torch.tensor([9.0, 1.0, 4.0]), torch.full((3,), 2.0), 0.75)
    tensor([8., 2., 4.])
    """
    squared = delta.square()
    return second - (1 - beta) * squared * torch.sign(second - squared)


_SECOND = {"fedadam": second_of_adam, "fedyogi": second_of_yogi}


def advance(delta: Tensor, before: Moments | None, args: OptimiserArgs) -> tuple[Tensor, Moments]:
    """Return the step (P,) float64 before it is scaled by the server's rate, and the new moments.

    Parameters
    ----------
    delta
        (P,) float64, the pseudo-gradient.
    before
        The moments; None before the first step.
    args
        Which optimiser.
    """
    if args.name == "fedavgm":
        first = delta if before is None else velocity(before.first, delta, args.beta1)
        step = velocity(first, delta, args.beta1) if args.nesterov else first
        return step, Moments(first, delta.new_zeros(0))
    if before is None:
        before = Moments(torch.zeros_like(delta), torch.full_like(delta, args.tau**2))
    first = args.beta1 * before.first + (1 - args.beta1) * delta
    second = _SECOND[args.name](before.second, delta, args.beta2)
    return first / (second.sqrt() + args.tau), Moments(first, second)


class ServerOptimiser:
    """One server's optimiser, with what it keeps across rounds.

    Parameters
    ----------
    args
        Its settings.
    rate
        eta, what its step is multiplied with.
    """

    def __init__(self, args: OptimiserArgs, rate: float) -> None:
        self.args, self.rate = args, rate
        self.moments: Moments | None = None
        """None before the first step, and after a model that replaced the global one."""

    def proposed(self, start: Tensor, end: Tensor) -> tuple[Tensor, Moments]:
        """Return the next weights (P,) and the moments that go with them; keeps neither.

        Parameters
        ----------
        start
            (P,) the global weights.
        end
            (P,) what the defense answers.
        """
        wide = start.double()
        step, moments = advance(end.double() - wide, self.moments, self.args)
        return (wide + self.rate * step).float(), moments

    def state_dict(self) -> dict[str, Any]:
        """Return the moments; nothing where there are none."""
        return {} if self.moments is None else self.moments._asdict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.moments = Moments(state["first"], state["second"]) if state else None
