"""AlignIns: leave out updates whose direction or signs stand apart, and clip the rest.

Xu et al., "Detecting Backdoor Attacks in Federated Learning via Direction Alignment Inspection",
CVPR 2025, arXiv 2503.07978. Two numbers describe an update. The temporal direction alignment (TDA)
is its cosine to the global model. The masked principal sign alignment (MPSA) is the share of its
largest parameters whose sign is the one that most clients have there. Who lies farther from the
median of either, in standard deviations of it, than its radius is left out; the others are clipped
to their median norm and averaged.

Where we leave the paper and its code, and why:

- both numbers are of trainable parameters; the code's vectors hold BatchNorm statistics and
  counters, too, and a counter of batches outweighs all weights in a cosine;
- where all clients have the same number nobody stands apart; the code divides by zero, and so
  leaves everybody out;
- the median of the norms is the lower one, as in the code: else one attacker of two who are left
  would set it at will. Clients weigh as `server.weighting` says, in the code by their samples;
- a client without an update has cosine 0.

Nobody may be left, and then the global model stays. Of n clients the farthest from the median is
at least one standard deviation away: with radii of 1 the rule leaves somebody out of every round
whose clients are not all alike. A single far value stretches the deviation that is the measure for
all.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import torch
from torch import Tensor

from entity.config.schema import Positive, Range
from entity.defenses.norm_clipping import clip_factors
from entity.layout import blocks
from entity.server.contract import Needs, Server, Setting
from entity.server.density import LEAST_CLUSTERED, require_clusterable
from entity.updates import Aggregation, Stopwatch, Updates, verdicts

_DIGITS = 12
"""Decimals of an alignment, and of its distance from the median, that count."""


@dataclass(frozen=True)
class AlignInsArgs:
    """Settings of AlignIns; defaults are the authors'."""

    sparsity: Annotated[float, Range(0, 1, above=True)] = 0.3
    """Share of an update's parameters, the largest, whose signs are compared; at least one."""
    lambda_c: Positive = 1.0
    """Radius of the direction (TDA): standard deviations from the median, not reached."""
    lambda_s: Positive = 1.0
    """Radius of the signs (MPSA), likewise."""


class Alignment(NamedTuple):
    """How the updates of a round point."""

    direction: Tensor
    """(n,) float64: TDA, cosines to the global model."""
    signs: Tensor
    """(n,) float64: MPSA, shares of an update's largest parameters with the principal sign."""


class AlignIns(Server[AlignInsArgs]):
    """The clipped mean of the updates that point as most do."""

    summary = "AlignIns: leave out unusual directions and signs, clip the rest to its median norm"
    paper = "Xu et al. 2025, arXiv 2503.07978"
    hyperparameters = AlignInsArgs
    revision = 3
    least_clients = LEAST_CLUSTERED

    @classmethod
    def needs(cls, args: AlignInsArgs) -> Needs:
        """Ask for single updates, most of them honest."""
        return Needs(individual_updates=True, honest_majority=True)

    @classmethod
    def check(cls, args: AlignInsArgs, setting: Setting) -> None:
        """Refuse rounds too small for a deviation from the median to mean something."""
        require_clusterable("alignins", setting)

    def aggregate(self, updates: Updates) -> Aggregation:
        """Inspect, filter, clip, average."""
        watch, args = Stopwatch(), self.args
        with watch("inspect"):
            found = alignment(updates, args.sparsity)
            away = deviations(found.direction), deviations(found.signs)
        turned, signed = away[0] >= args.lambda_c, away[1] >= args.lambda_s
        kept = ~(turned | signed)
        shares = self.shares(updates, kept)
        bound = float(updates.norms[kept].median()) if kept.any() else 0.0
        factors = clip_factors(updates.norms, bound)
        with watch("average"):
            state = self.average_scaled(updates, shares, factors)
        return Aggregation(
            *state,
            verdicts(
                updates,
                kept.tolist(),
                shares * factors,
                scores=torch.maximum(away[0] / args.lambda_c, away[1] / args.lambda_s).tolist(),
                reasons=dict(enumerate(map(_reason, turned.tolist(), signed.tolist()))),
            ),
            {
                "clip_norm": bound,
                "clipped": float((factors[kept] < 1).sum()),
                "tda_median": float(found.direction.quantile(0.5)),
                "mpsa_median": float(found.signs.quantile(0.5)),
            },
            watch.seconds,
        )


def _reason(turned: bool, signed: bool) -> str:
    if turned and signed:
        return "unusual direction (TDA) and signs (MPSA)"
    return "unusual direction (TDA)" if turned else "unusual signs (MPSA)"


def alignment(updates: Updates, sparsity: float) -> Alignment:
    """Return how the updates of a round point.

    The principal sign of a parameter is that of the sum of its signs, 0 where as many are up as
    down; a client counts as aligned where it has just that sign.

    Parameters
    ----------
    updates
        The round.
    sparsity
        Share of the trained parameters that are an update's significant ones, those of the largest
        magnitude; rounded down, at least one.
    """
    start, size = updates.global_weights, updates.weights.shape[1]
    principal = torch.empty(size)
    dots = torch.zeros(len(updates), dtype=torch.float64)
    for columns in blocks(size):
        block = updates.weights[:, columns] - start[columns]
        principal[columns] = block.sign().sum(0).sign()
        dots += block.double() @ start[columns].double()
    scale = updates.norms * start.double().norm()
    largest = max(1, int(sparsity * updates.spec.num_trained + 1e-9))
    signs = torch.empty(len(updates), dtype=torch.float64)
    for row, weights in enumerate(updates.weights):
        delta = weights - start
        places = delta.abs().topk(largest, sorted=False).indices
        signs[row] = (delta[places].sign() == principal[places]).double().mean()
    return Alignment(torch.where(scale > 0, dots / scale, 0), signs)


def deviations(values: Tensor) -> Tensor:
    """Return the MZ-scores (n,) of values (n,): |value - median| / standard deviation of them all.

    The deviation is that of the n values themselves (divided by n); all scores are 0 where it is.

    Examples
    --------
    >>> deviations(torch.tensor([0.0, 1.0, 2.0, 9.0]).double()).tolist()
    [0.424264068712, 0.141421356237, 0.141421356237, 2.12132034356]
    >>> deviations(torch.tensor([0.5, 0.5, 0.5]).double()).tolist()
    [0.0, 0.0, 0.0]
    """
    values = values.double().round(decimals=_DIGITS)
    spread = values.std(correction=0)
    if spread == 0:
        return torch.zeros_like(values)
    return ((values - values.quantile(0.5)).abs() / spread).round(decimals=_DIGITS)
