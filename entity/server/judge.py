"""Which of two groups of clients is the coalition: the smaller one, unless it may be the others.

What clients have in common where clean images see nothing, before the mean is taken off, says who
has a push there. Of two groups of one size it decides; and where the larger one has much more of
it, attackers may be the majority, and nobody is left out, unless the smaller one hides next to
nothing, as attackers do who know that it is looked at.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from entity.server.coalition import Groups, pairs
from entity.server.sketches import Described
from entity.updates import ClientId, rows_by_id

MUCH, LITTLE = 1.3, 0.5
"""A larger group that has so many times more in common where clean images see nothing may be the
one that pushes, if the smaller hides more than this share of what the larger does."""


class Judge:
    """What was found of groups so far: it stands as long as they do, in whatever part they show.

    Whoever is left out for long differs from the others because of that, and in the end says
    nothing of who pushes.
    """

    def __init__(self) -> None:
        self.refused: dict[str, frozenset[ClientId]] = {}
        """By part: the smaller group that was last found to be a coalition."""
        self.doubted: dict[str, frozenset[ClientId]] = {}
        """By part: the larger group that was last found to be perhaps the attackers'."""

    def coalition(
        self, part: str, groups: Groups, clients: Sequence[ClientId], described: Described
    ) -> frozenset[ClientId]:
        """Return which of two groups is a coalition; nobody, where it may be the larger one.

        Parameters
        ----------
        part
            In which the groups are apart.
        groups
            Far enough apart.
        clients
            Of the round.
        described
            The round's updates.
        """
        equal = len(groups.smaller) == len(groups.larger)
        if not equal and _mostly(groups.smaller, self.refused):
            return groups.smaller
        if not equal and _mostly(groups.larger, self.doubted):
            return frozenset()
        row = {client: number for number, client in enumerate(clients)}
        small, large = (
            torch.tensor(sorted(row[client] for client in group if client in row))
            for group in (groups.smaller, groups.larger)
        )
        if min(len(small), len(large)) < 2:  # too few of them are here to say anything
            return groups.smaller
        products, shares = described.products, described.products.diagonal() / described.squares
        common, theirs = (float(pairs(products[g][:, g]).mean()) for g in (small, large))
        if equal:
            return groups.smaller if common >= theirs else groups.larger
        bare = float(shares[small].mean()) < LITTLE * float(shares[large].mean())
        if not bare and theirs > MUCH * max(common, 0.0):
            self.doubted[part] = groups.larger
            return frozenset()
        self.refused[part] = groups.smaller
        return groups.smaller

    def state_dict(self) -> dict[str, Any]:
        """Return what was found."""
        found = {"refused": self.refused, "doubted": self.doubted}
        return {
            what: {part: _in_order(group) for part, group in groups.items()}
            for what, groups in found.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.refused, self.doubted = (
            {part: frozenset(group) for part, group in state[what].items()}
            for what in ("refused", "doubted")
        )


def _in_order(group: frozenset[ClientId]) -> list[ClientId]:
    clients = list(group)
    return [clients[row] for row in rows_by_id(clients)]


def _mostly(group: frozenset[ClientId], found: Mapping[str, frozenset[ClientId]]) -> bool:
    return any(2 * len(group & known) > len(group) for known in found.values())
