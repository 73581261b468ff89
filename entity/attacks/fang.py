"""Fang: directed deviation from where the global model would go.

Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security
2020, arXiv 1911.11815. s holds, for each parameter, whether the rule without the attack would raise
it (1) or not (-1); the attackers send what moves the rule farthest against s. With full knowledge
they are omniscient: they know all updates of the round and the rule. With partial knowledge they
know the rule and their own honest updates, from which s and the honest range are estimated.

Trimmed mean and median: values just outside the honest range of *models*, on the side against s.
Krum: one attacker sends `w - λ s` with the largest λ, halved from the bound of theorem 1, at which
Krum still chooses it among copies of itself; the others send points within ε of it.

Beyond the paper: attackers who are too many for theorem 1 (n < 2c + 2) divide by 1 in it; where no
λ of 1e-5 or more is found the honest updates are sent; updates that are not finite are nobody's
knowledge, and where nobody is benign the attackers have partial knowledge. They take the rule's
bound to be their own number, as the paper does, whatever the server's is.
"""

import logging
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from entity.client.direction import Known, Rule, look, squared_distances
from entity.client.untargeted import Knowledge, Untargeted, known_deltas
from entity.config.schema import NonNegative, Range
from entity.defenses.krum import krum_scores
from entity.seeding import Seeds
from entity.updates import Updates

log = logging.getLogger("entity")

SMALLEST = 1e-5
"""λ below which the paper's search ends without a solution."""


@dataclass(frozen=True)
class FangArgs:
    """Hyper-parameters of Fang's attacks."""

    fang_rule: Rule = "trimmed_mean"
    """The rule that is attacked: the server's, or the one that the attackers take it for."""
    fang_b: Annotated[float, Range(1, above=True)] = 2.0
    """b, how far beyond the honest range: up to b times its end; above 1, 2 in the paper."""
    fang_epsilon: NonNegative = 0.01
    """ε, Euclidean distance of the other attackers' models from the first one's, for Krum."""
    knowledge: Knowledge = "omniscient"
    """Full knowledge (all updates of the round) or partial (the attackers' own honest ones)."""


def far_end(near: Tensor, rises: Tensor, b: float) -> Tensor:
    """Return the far ends (c,) of the intervals that begin at the ends of the honest range.

    Parameters
    ----------
    near
        (c,) the least honest parameter where the rule would raise it, elsewhere the greatest.
    rises
        (c,) bool, s = 1.
    b
        Above 1: parameters are multiplied with b or 1 / b, whichever leads away.

    Examples
    --------
    >>> near = torch.tensor([4.0, -4.0, 4.0, -4.0])
    >>> far_end(near, torch.tensor([True, True, False, False]), 2.0).tolist()
    [2.0, -8.0, 8.0, -2.0]
    """
    return torch.where((near > 0) != rises, near * b, near / b)


def largest_step(gram: Tensor, along: Tensor, size: int, copies: int) -> float:
    """Return λ, halved from the bound of theorem 1 until Krum chooses `-λ s`; 0 if it never does.

    Parameters
    ----------
    gram
        (k, k) float64 inner products of the known honest updates.
    along
        (k,) those with s.
    size
        P, the squared norm of s.
    copies
        Attackers that send `-λ s`; the bound f of Krum, too.

    Examples
    --------
    Of 2, 3 and 4, with one attacker at -λ and s = 1, the bound is 1 / 1 + 4; any λ is too far.

    >>> deltas = torch.tensor([[2.0], [3.0], [4.0]], dtype=torch.float64)
    >>> largest_step(deltas @ deltas.T, deltas[:, 0], 1, 1), largest_step(deltas @ deltas.T,
    ...     deltas[:, 0], 1, 3)
    (0.0, 5.0)
    """
    k, squares = len(gram), gram.diagonal()
    known = squared_distances(gram)
    nearest = known.sqrt().fill_diagonal_(torch.inf).sort(1).values[:, : max(0, k - 2)].sum(1).min()
    step = ((nearest / max(1, k - copies - 1) + squares.max().sqrt()) / size**0.5).item()
    while step >= SMALLEST:
        cross = (squares + 2 * step * along + step**2 * size).clamp_min(0).expand(copies, k)
        zero = torch.zeros(copies, copies, dtype=gram.dtype)
        both = torch.cat([torch.cat([zero, cross], 1), torch.cat([cross.T, known], 1)])
        scores = krum_scores(both, copies)
        if scores[0] < scores[copies:].min():
            return step
        step /= 2
    return 0.0


class Fang(Untargeted):
    """Sends what moves a robust rule farthest against the direction of the round."""

    summary = "Fang: directed deviation against trimmed mean, median or Krum"
    paper = "Fang et al. 2020, arXiv 1911.11815"
    hyperparameters = FangArgs

    @classmethod
    def collude(cls, args: FangArgs, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Estimate s, and send the answer to the rule; `knowledge` says from whose updates."""
        known = look(updates, malicious, args.fang_rule, args.knowledge)
        if not known.rows:
            return
        if args.fang_rule == "krum":
            _deceive_krum(args, updates, malicious, known, seeds)
        else:
            _leave_the_range(args, updates, malicious, known, seeds)


def _leave_the_range(
    args: FangArgs, updates: Updates, malicious: list[int], known: Known, seeds: Seeds
) -> None:
    """Send values outside the honest range, or with partial knowledge of μ ± 3 σ to μ ± 4 σ."""
    near, far = torch.empty(2, updates.weights.shape[1], dtype=torch.float64)
    for columns, deltas in known_deltas(updates, known.rows):
        models = updates.global_weights[columns].double() + deltas
        rises = known.rises[columns]
        if known.full:
            near[columns] = torch.where(rises, models.amin(0), models.amax(0))
            far[columns] = far_end(near[columns], rises, args.fang_b)
        else:
            away = torch.where(rises, -1.0, 1.0) * models.std(0, correction=0)
            near[columns], far[columns] = models.mean(0) + 3 * away, models.mean(0) + 4 * away
    largest = torch.finfo(torch.float32).max
    for row in malicious:
        rng = _stream(updates, row, seeds)
        share = torch.rand(len(near), generator=rng, dtype=torch.float64)
        sent = near + share * (far - near)
        updates.weights[row] = sent.clamp(-largest, largest).float()


def _deceive_krum(
    args: FangArgs, updates: Updates, malicious: list[int], known: Known, seeds: Seeds
) -> None:
    """Send `w - λ s` and points near it; without a λ nothing changes."""
    size = len(known.rises)
    along = torch.zeros(len(known.rows), dtype=torch.float64)
    for columns, deltas in known_deltas(updates, known.rows):
        along += deltas @ torch.where(known.rises[columns], 1.0, -1.0).double()
    # With partial knowledge the paper adds copies until a λ is found; with so many one always is,
    # unless the honest updates are nothing at all.
    tries = [len(malicious)] if known.full else range(1, len(known.rows) + 3)
    steps = (largest_step(known.gram, along, size, copies) for copies in tries)
    step = next(filter(None, steps), 0.0)
    if step == 0:
        log.info("round %d: Fang finds no step that Krum would choose", updates.round)
        return
    first = updates.global_weights.double() + torch.where(known.rises, -step, step)
    for row in malicious:
        updates.weights[row] = first.float()
        if row != malicious[0]:
            rng = _stream(updates, row, seeds)
            noise = torch.randn(size, generator=rng, dtype=torch.float64)
            radius = args.fang_epsilon * torch.rand((), generator=rng).item() ** (1 / size)
            updates.weights[row] = (first + noise * (radius / noise.norm())).float()


def _stream(updates: Updates, row: int, seeds: Seeds) -> torch.Generator:
    client = updates.client_ids[row]
    return seeds.generator("fang", round=updates.round, client=client)
