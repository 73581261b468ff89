"""Min-Max and Min-Sum: the farthest update that distances do not give away.

Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and
Defenses for Federated Learning", NDSS 2021, doi 10.14722/ndss.2021.24498. All attackers send
`u = mean + γ p` with the largest γ that keeps u, to every known honest update, no farther than the
two farthest of those are apart (Min-Max), or keeps the sum of its squared distances to them no
larger than the largest such sum of an honest one (Min-Sum).

The paper searches γ by halving steps; both bounds are quadratic in γ, so we solve them, and no
start value or tolerance is left to choose. Min-Sum comes out as far from the mean as the farthest
honest update is. The authors' code takes the smallest sum instead of the largest, and so stops at
the distance of the nearest one.
"""

import logging
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from entity.client.untargeted import Knowledge, Untargeted, known_deltas, known_rows, send
from entity.config.schema import Positive
from entity.seeding import Seeds
from entity.updates import Updates

log = logging.getLogger("entity")


@dataclass(frozen=True)
class MinMaxArgs:
    """Hyper-parameters of Min-Max and Min-Sum."""

    objective: Literal["max", "sum"] = "max"
    """Which distances to stay within: the largest one (Min-Max) or the sum (Min-Sum)."""
    perturbation: Literal["std", "unit", "sign"] = "std"
    """p, where to go: against the standard deviation, the mean, or the sign of the mean."""
    knowledge: Knowledge = "omniscient"
    """Whose updates: all benign clients', or the attackers' own honest ones. The paper has both."""
    gamma_share: Positive = 1.0
    """Share of the largest step that is used; 1 is the paper's, above 1 gives the attack away."""


def largest_gamma(
    gram: Tensor, along: Tensor, length: float, objective: Literal["max", "sum"]
) -> float:
    """Return the largest γ at which mean + γ p still looks like one of k honest updates.

    With a = ‖mean - Δ_i‖² and b = p·(mean - Δ_i), the squared distance to Δ_i is
    a + 2 γ b + γ² ‖p‖².

    Parameters
    ----------
    gram
        (k, k) inner products of the centred updates Δ_i - mean.
    along
        (k,) inner products of p with the centred updates.
    length
        ‖p‖; 0 gives γ = 0.
    objective
        Whether the largest distance or the sum of squared distances is bounded.

    Examples
    --------
    Honest updates -1 and 1 are 2 apart; from their mean 0 one can go 1 before 2 is exceeded.

    >>> gram = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    >>> largest_gamma(gram, torch.tensor([-1.0, 1.0]), 1.0, "max")
    1.0
    """
    if length == 0:
        return 0.0
    squares = gram.diagonal()
    squared = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0)
    if objective == "max":
        room = (squared.max() - squares).clamp_min(0)
        roots = along + (along**2 + length**2 * room).sqrt()
        return (roots.min() / length**2).clamp_min(0).item()
    # The centred updates sum to zero, and the linear terms with them.
    room = (squared.sum(1).max() - squares.sum()).clamp_min(0)
    return (room / len(gram)).sqrt().item() / length


class MinMax(Untargeted):
    """Goes as far as the honest updates' own spread allows."""

    summary = "Min-Max / Min-Sum: farthest update within the honest updates' distances"
    paper = "Shejwalkar and Houmansadr, NDSS 2021, doi 10.14722/ndss.2021.24498"
    hyperparameters = MinMaxArgs

    @classmethod
    def collude(
        cls, args: MinMaxArgs, updates: Updates, malicious: list[int], seeds: Seeds
    ) -> None:
        """Send the same perturbed mean; `knowledge` says of which clients."""
        rows = known_rows(updates, malicious, args.knowledge)
        gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
        along = torch.zeros(len(rows), dtype=torch.float64)
        square = 0.0
        for _, deltas in known_deltas(updates, rows):
            centred = deltas - deltas.mean(0)
            p = perturbation(deltas, args.perturbation)
            gram += centred @ centred.T
            along += centred @ p
            square += (p @ p).item()
        if len(rows) == 1:
            said = "round %d: Min-Max sends the mean of one known update: no attack"
            log.warning(said, updates.round)
        gamma = args.gamma_share * largest_gamma(gram, along, square**0.5, args.objective)
        for columns, deltas in known_deltas(updates, rows):
            crafted = deltas.mean(0) + gamma * perturbation(deltas, args.perturbation)
            send(updates, malicious, columns, crafted)


def perturbation(deltas: Tensor, kind: Literal["std", "unit", "sign"]) -> Tensor:
    """Return the direction p (columns,) for some columns of the known deltas (k, columns).

    Its length does not matter, as γ makes up for it: `unit` is left as long as the mean, whose
    norm is not known before all columns are seen.
    """
    if kind == "std":
        return -deltas.std(0, correction=0)
    return -deltas.mean(0) if kind == "unit" else -deltas.mean(0).sign()
