"""Which of two groups of clients is the coalition: the smaller one, if it has clearly more to hide.

What clients have in common where clean images see nothing, before the mean is taken off, says who
has a push there. Attackers who know that it is looked at hide less there; so a smaller group with a
smaller part of its updates there needs less in common, by the square of that. If the smaller one
has not clearly more, attackers may be the majority, and nobody is left out for now. Of two groups
of one size it is the one that has more.

A single round says little. So the last rounds are looked at together, and a coalition that was
found once remains one: whoever is left out for long differs from the others because of that, and in
the end says nothing of who pushes.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from math import exp, log
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from entity.server.coalition import Groups, pairs
from entity.server.sketches import Described
from entity.updates import ClientId, rows_by_id

CLEARLY = 1.3
"""How many times as much in common a smaller group must have."""

NOTHING = 1e-3
"""What clients have in common is at least that: less is not told apart from none."""


class _Round(NamedTuple):
    """What is kept of a round."""

    clients: list[ClientId]
    products: Tensor
    """(n, n) of the hidden parts, over their mean squared length."""
    shares: Tensor
    """(n,) of the squared length of an update that is hidden."""

    def rows(self, group: frozenset[ClientId]) -> Tensor:
        """Return which rows are of a group, (k,)."""
        return torch.tensor([row for row, each in enumerate(self.clients) if each in group])

    def common(self, group: Tensor) -> float:
        """Return what the clients of some rows have in common."""
        return max(float(pairs(self.products[group][:, group]).mean()), NOTHING)

    def without(self, client: ClientId) -> "_Round":
        """Return what is left when a client is forgotten."""
        kept = torch.tensor([row for row, each in enumerate(self.clients) if each != client]).long()
        clients = [self.clients[row] for row in kept.tolist()]
        return _Round(clients, self.products[kept][:, kept], self.shares[kept])


class Judge:
    """What clients hid in the last rounds, and which coalitions were found.

    Parameters
    ----------
    rounds
        That are looked at together.
    """

    def __init__(self, rounds: int) -> None:
        self._last: deque[_Round] = deque(maxlen=rounds)
        self.refused: dict[str, frozenset[ClientId]] = {}
        """By part: the group that was last found to be a coalition."""

    def observe(self, clients: Sequence[ClientId], described: Described) -> None:
        """Add a round."""
        squares = described.products.diagonal()
        products = described.products / squares.mean().clamp_min(1e-30)
        shares = squares / described.squares.clamp_min(1e-30)
        self._last.append(_Round(list(clients), products.float(), shares.float()))

    def coalition(self, part: str, groups: Groups) -> frozenset[ClientId]:
        """Return which of two groups is a coalition; nobody, where it may be the larger one.

        Parameters
        ----------
        part
            In which the groups are apart.
        groups
            Far enough apart.
        """
        small, large = groups.smaller, groups.larger
        equal = len(small) == len(large)
        for group in (small, large) if equal else (small,):
            if any(2 * len(group & found) > len(group) for found in self.refused.values()):
                return group
        more = self._more_in_common(small, large, equal)
        if more is None:  # nothing but their size is known
            return small
        if equal:
            found = small if more >= 1 else large
        elif more >= CLEARLY:
            found = small
        else:
            return frozenset()
        self.refused[part] = found
        return found

    def _more_in_common(
        self, one: frozenset[ClientId], other: frozenset[ClientId], equal: bool
    ) -> float | None:
        """Return how many times as much one group has in common; None if too few of them came."""
        logs = list[float]()
        for each in self._last:
            first, second = each.rows(one), each.rows(other)
            if min(len(first), len(second)) < 2:
                continue
            hides = float(each.shares[first].mean() / each.shares[second].mean())
            allowed = 1.0 if equal else max(min(1.0, hides), NOTHING) ** 2
            logs.append(log(each.common(first) / each.common(second) / allowed))
        return exp(fmean(logs)) if logs else None

    def pardon(self, client: ClientId) -> None:
        """Forget what a client hid, and that it was found in a coalition."""
        self._last = deque((each.without(client) for each in self._last), self._last.maxlen)
        self.refused = {part: found - {client} for part, found in self.refused.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the rounds that are kept, and what was found."""
        return {
            "last": [each._asdict() for each in self._last],
            "refused": {part: _in_order(group) for part, group in self.refused.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._last.clear()
        self._last.extend(_Round(**each) for each in state["last"])
        self.refused = {part: frozenset(group) for part, group in state["refused"].items()}


def _in_order(group: frozenset[ClientId]) -> list[ClientId]:
    clients = list(group)
    return [clients[row] for row in rows_by_id(clients)]
