"""Which of two groups of clients is the coalition: the smaller one, if it has clearly more to hide.

What clients have in common where clean images see nothing, before the mean is taken off, says who
has a push there. Attackers who know that it is looked at hide less there; so a smaller group with a
smaller part of its updates there needs less in common, by the square of that, but something. Or
they cover it with noise; so a group with twice as large a part there needs nothing in common. If
the smaller group has clearly more of neither, attackers may be the majority, and nobody is left out
for now. Of two groups of one size it is the one that has more.

A single round says little. So the last rounds are looked at together, and a coalition that was
found once remains one, until another is found that shares a client with it: whoever is left out for
long differs from the others because of that, and in the end says nothing of who pushes.
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

TWICE = 2.0
"""How many times as large a part of their updates clients must hide to be left out for that."""

NOTHING = 1e-3
"""What clients have in common, and hide, is at least that: less is not told apart from none."""


class _Compared(NamedTuple):
    """How many times as much one group hides as another, over some rounds."""

    common: float
    """Of what its members have in common, less being enough where it hides a smaller share."""
    share: float
    """Of its updates."""


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

    def share(self, group: Tensor) -> float:
        """Return which share of their updates the clients of some rows hide."""
        return max(float(self.shares[group].mean()), NOTHING)

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
    clearly
        How many times as much in common a smaller group must have.
    """

    def __init__(self, rounds: int, clearly: float) -> None:
        self.clearly = clearly
        self._last: deque[_Round] = deque(maxlen=rounds)
        self.found: list[frozenset[ClientId]] = []
        """Coalitions; nobody is in two."""

    def observe(self, clients: Sequence[ClientId], described: Described) -> None:
        """Add a round."""
        squares = described.products.diagonal()
        products = described.products / squares.mean().clamp_min(1e-30)
        shares = squares / described.squares.clamp_min(1e-30)
        self._last.append(_Round(list(clients), products.float(), shares.float()))

    def coalition(self, groups: Groups) -> frozenset[ClientId]:
        """Return which of two groups is a coalition; nobody, where it may be the larger one.

        Parameters
        ----------
        groups
            Far enough apart. What counts of their sizes is who came in the last rounds.
        """
        if standing := self.standing(groups):
            return standing
        (small, few), (large, many) = self._by_size(groups)
        equal = few == many
        more = self._compared(small, large, equal)
        if more is None:  # nothing but their size is known
            return frozenset() if self.clearly > 0 else small
        if more.share >= TWICE:
            found = small
        elif equal:
            found = small if more.common >= 1 and more.share > 1 / TWICE else large
        elif more.common >= self.clearly:
            found = small
        else:
            return frozenset()
        self.found = [each for each in self.found if not each & found] + [found]
        return found

    def standing(self, groups: Groups) -> frozenset[ClientId]:
        """Return which of two groups was found before, for the most part; nobody, if neither.

        A group of which nobody came lately counts as found: it must not hide others.
        """
        (small, few), (large, many) = self._by_size(groups)
        for group in (small, large) if few == many else (small,):
            if any(2 * len(group & found) > len(group) for found in self.found):
                return group
        return frozenset() if few else small

    def _by_size(self, groups: Groups) -> list[tuple[frozenset[ClientId], int]]:
        """Return the smaller group and the larger, each with how many of it came lately."""
        here = {client for each in self._last for client in each.clients}
        sized = [(group, len(group & here)) for group in (groups.smaller, groups.larger)]
        return sorted(sized, key=lambda each: each[1])

    def _compared(
        self, one: frozenset[ClientId], other: frozenset[ClientId], equal: bool
    ) -> _Compared | None:
        """Return how many times as much one group hides; None if too few of them came.

        Of two groups of one size neither needs less.
        """
        logs = list[tuple[float, float]]()
        for each in self._last:
            first, second = each.rows(one), each.rows(other)
            if min(len(first), len(second)) < 2:
                continue
            common = each.common(first) / each.common(second)
            share = each.share(first) / each.share(second)
            if not equal and each.common(first) > NOTHING:
                common /= min(1.0, share) ** 2
            logs.append((log(common), log(share)))
        return _Compared(*(exp(fmean(each)) for each in zip(*logs, strict=True))) if logs else None

    def pardon(self, client: ClientId) -> None:
        """Forget what a client hid, and that it was found in a coalition."""
        self._last = deque((each.without(client) for each in self._last), self._last.maxlen)
        self.found = [left for found in self.found if (left := found - {client})]

    def state_dict(self) -> dict[str, Any]:
        """Return the rounds that are kept, and what was found."""
        return {
            "last": [each._asdict() for each in self._last],
            "found": [_in_order(group) for group in self.found],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._last.clear()
        self._last.extend(_Round(**each) for each in state["last"])
        self.found = [frozenset(group) for group in state["found"]]


def _in_order(group: frozenset[ClientId]) -> list[ClientId]:
    clients = list(group)
    return [clients[row] for row in rows_by_id(clients)]
