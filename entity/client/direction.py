"""Where a robust rule would move the global model, as far as attackers can tell (Fang's s).

Updates that are not finite are nobody's knowledge, as no server takes them.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from entity.client.untargeted import Knowledge, known_deltas
from entity.defenses.krum import krum_scores, ranked
from entity.defenses.median import middle
from entity.defenses.trimmed_mean import trimmed_mean
from entity.updates import Updates, finite_rows

Rule = Literal["trimmed_mean", "median", "krum"]


class Known(NamedTuple):
    """What the attackers know of a round."""

    rows: list[int]
    """Honest updates: of benign clients, or the attackers' own."""
    full: bool
    """Whether of benign clients."""
    gram: Tensor
    """(k, k) float64 inner products of these updates, for Krum; zeros for other rules."""
    rises: Tensor
    """(P,) bool, whether the rule would raise the parameter without the attack."""


def look(updates: Updates, malicious: list[int], rule: Rule, knowledge: Knowledge) -> Known:
    """Return the honest updates that the attackers know, and the direction of the round.

    With all updates the direction is the rule's own answer to them, the attackers' honest ones
    among them, with the attackers' number as its bound; with the attackers' alone it is their mean.

    Parameters
    ----------
    updates
        The round, as all clients have trained it.
    malicious
        The attackers' rows.
    rule
        The server's rule.
    knowledge
        Which updates they see; where nobody is benign, their own.
    """
    finite = finite_rows(updates)
    benign = [row for row in finite if row not in malicious]
    full = knowledge == "omniscient" and len(benign) > 0
    everybody = finite if full else [row for row in finite if row in malicious]
    gram = torch.zeros(len(everybody), len(everybody), dtype=torch.float64)
    if rule == "krum":
        for _, deltas in known_deltas(updates, everybody):
            gram += deltas @ deltas.T
    rises = torch.zeros(updates.weights.shape[1], dtype=torch.bool)
    for columns, deltas in known_deltas(updates, everybody):
        if full:
            rises[columns] = _moves(deltas, rule, gram, len(malicious)) > 0
        elif everybody:
            rises[columns] = deltas.mean(0) > 0
    rows = benign if full else everybody
    kept = [everybody.index(row) for row in rows]
    return Known(rows, full, gram[kept][:, kept], rises)


def _moves(deltas: Tensor, rule: Rule, gram: Tensor, attackers: int) -> Tensor:
    """Return how far (c,) a rule would move some columns of all updates (n, c)."""
    n = len(deltas)
    if rule == "krum":
        return deltas[ranked(krum_scores(squared_distances(gram), attackers), range(n))[0]]
    ordered = deltas.T.sort(1).values.numpy()
    cut = min(attackers, (n - 1) // 2)
    return torch.from_numpy(middle(ordered) if rule == "median" else trimmed_mean(ordered, cut))


def squared_distances(gram: Tensor) -> Tensor:
    """Return squared distances (k, k) from inner products (k, k)."""
    squares = gram.diagonal()
    return (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0).fill_diagonal_(0)
