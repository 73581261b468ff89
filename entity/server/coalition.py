"""Who pushes together, round after round.

What attackers teach is the same in every round and the same for all of them; the noise of
training is neither. So a client is described by a part of its update, layer by layer less the
round's mean and scaled to length one, and these descriptions are added up over the rounds. Average
linkage of the cosines of the sums (UPGMA; Sokal and Michener 1958) gives two groups. The smaller
one is a coalition if its members agree with each other, and the others with each other, clearly
more than the two groups do.

What clients have in common where clean images see nothing, before the mean is taken off, says who
has a push there. Of two groups of one size it decides; and where the larger one has much more of
it, attackers may be the majority, and nobody is left out, unless the smaller one hides next to
nothing, as attackers do who know that it is looked at.

There are two parts (`visible.py`). What a client's own mix of classes makes of its update is for
the most part in the one that clean images show, where honest clients may agree as much as
attackers do. But they agree by degrees, and attackers are all alike: there a contrast counts
beside the spread of the cosines, as an effect size (Cohen, "Statistical Power Analysis for the
Behavioral Sciences", 1988).
"""

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any, NamedTuple

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from entity.seeding import Seeds
from entity.server.visible import View
from entity.updates import ClientId, rows_by_id

HIDDEN, SHOWN = 16_384, 8_192
"""Entries of a description of what clean images do not show, and of what they do: 96 kB in all."""

ROWS = 64
"""Outputs of a layer that are looked at: drawn at random, the same in all rounds."""

MUCH, LITTLE = 1.75, 0.5
"""A larger group that has so many times more in common where clean images see nothing may be the
one that pushes, if the smaller hides more than this share of what the larger does."""

LEAST = 4
"""Clients that two groups are looked for among: two of each could be told apart."""


class Groups(NamedTuple):
    """Two groups of clients, and how far apart they are."""

    smaller: frozenset[ClientId]
    larger: frozenset[ClientId]
    """No client in either, where there are too few to look for groups."""
    contrast: float
    """Mean cosine within a group, the lower one of the two, minus that between them; NaN where
    there are no two groups of two or more."""
    effect: float
    """The contrast over the standard deviation of the cosines about their three means: within the
    one group, within the other, between them (Cohen's d). Infinite, where they do not vary."""


NONE = Groups(frozenset(), frozenset(), float("nan"), float("nan"))


class Described(NamedTuple):
    """What the updates of a round are like."""

    hidden: Tensor
    """(n, HIDDEN) the parts that clean images do not show; rows of length one, or zero."""
    shown: Tensor
    """(n, SHOWN) the parts that they do, likewise."""
    products: Tensor
    """(n, n) inner products of the hidden parts, the mean not taken off."""
    squares: Tensor
    """(n,) squared lengths of both parts together."""


def descriptions(updates: Tensor, of: Sequence[View], seeds: Seeds) -> Described:
    """Return what the parts of updates are like.

    Parameters
    ----------
    updates
        (n, P) differences of weights.
    of
        The model's views.
    seeds
        Of the server: the outputs that are looked at and the signs of the sketches (Charikar et
        al., "Finding Frequent Items in Data Streams", 2002) are the same in every round.
    """
    n = len(updates)
    hidden, shown = torch.zeros(n, HIDDEN), torch.zeros(n, SHOWN)
    products, squares = torch.zeros(n, n).double(), torch.zeros(n).double()
    for view in of:
        generator = seeds.generator(f"sketch of {view.name}")
        part = view.of(updates)
        drawn = torch.randperm(part.shape[-2], generator=generator)[:ROWS]
        part = part[..., drawn, :]
        seen = view.visible(part)
        unseen = (part - seen).flatten(1)
        products += (unseen @ unseen.T).double()
        squares += part.double().square().flatten(1).sum(1)
        for sketch, piece in ((hidden, unseen), (shown, seen.flatten(1))):
            own = _unit(piece - piece.mean(0))
            places = torch.randint(sketch.shape[1], (own.shape[1],), generator=generator)
            signs = torch.randint(2, (own.shape[1],), generator=generator) * 2.0 - 1
            sketch.index_add_(1, places, own * signs)
    return Described(_unit(hidden), _unit(shown), products, squares)


def _mostly(group: frozenset[ClientId], known: frozenset[ClientId]) -> bool:
    return 2 * len(group & known) > len(group)


def _pairs(square: Tensor) -> Tensor:
    return square[torch.ones_like(square).triu(1) > 0]


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)


def two_groups(sums: Mapping[ClientId, Tensor]) -> Groups:
    """Split clients into two groups by the cosines of their sums (D,).

    Of two groups of one size the one whose members agree more counts as the smaller.

    Examples
    --------
    >>> a, b = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 1.0])
    >>> groups = two_groups({0: a, 1: b, 2: a, 3: a, 4: b})
    >>> sorted(groups.smaller), sorted(groups.larger), round(groups.contrast, 2)
    ([1, 4], [0, 2, 3], 0.9)
    """
    ids = list(sums)
    ids = [ids[row] for row in rows_by_id(ids)]
    if len(ids) < LEAST:
        return NONE
    rows = _unit(torch.stack([sums[client] for client in ids]).double())
    cosines = rows @ rows.T
    apart = (1 - cosines).clamp_min(0).fill_diagonal_(0)
    tree = linkage(squareform(apart.numpy(), checks=False), method="average")
    labels = torch.from_numpy(fcluster(tree, 2, "maxclust"))
    first, second = (torch.nonzero(labels == label)[:, 0] for label in (1, 2))
    if not len(first) or not len(second):  # all alike
        return NONE

    def within(group: Tensor) -> Tensor:
        return _pairs(cosines[group][:, group])

    def agreement(group: Tensor) -> float:
        return float(within(group).mean())

    small, large = sorted([first, second], key=lambda group: (len(group), -agreement(group)))
    smaller, larger = (frozenset(ids[row] for row in group.tolist()) for group in (small, large))
    if len(small) < 2:  # one client agrees with nobody
        return Groups(smaller, larger, float("nan"), float("nan"))
    between = cosines[small][:, large].flatten()
    contrast = min(agreement(small), agreement(large)) - float(between.mean())
    about = torch.cat([each - each.mean() for each in (within(small), within(large), between)])
    spread = float(about.square().mean().sqrt())
    effect = contrast / spread if spread > 0 else inf * contrast
    return Groups(smaller, larger, contrast, effect)


class Coalition:
    """The sums of descriptions of the clients seen so far, and the coalition among them.

    Parameters
    ----------
    enough
        Contrast from which on the smaller group is a coalition, however much the cosines vary.
    least, effect
        Contrast and effect size from which on, together, it is one.
    patience
        Rounds of a client before it is compared.
    memory
        What a round of a client still counts one round of its own later.
    """

    def __init__(
        self, enough: float, patience: int, memory: float, least: float = inf, effect: float = inf
    ) -> None:
        self.enough, self.least, self.effect = enough, least, effect
        self.patience, self.memory = patience, memory
        self.sums: dict[ClientId, Tensor] = {}
        self.seen: dict[ClientId, int] = {}
        self.refused: frozenset[ClientId] = frozenset()
        """The smaller group that was last found to be a coalition."""
        self.doubted: frozenset[ClientId] = frozenset()
        """The larger group that was last found to be perhaps the attackers'."""

    def observe(self, clients: Sequence[ClientId], described: Tensor) -> Groups:
        """Add a round's descriptions (n, D); return the two groups of all who can be compared."""
        for client, row in zip(clients, described, strict=True):
            before = self.sums.get(client)
            self.sums[client] = row.clone() if before is None else self.memory * before + row
            self.seen[client] = self.seen.get(client, 0) + 1
        known = {c: each for c, each in self.sums.items() if self.seen[c] >= self.patience}
        return two_groups(known)

    def members(
        self, groups: Groups, clients: Sequence[ClientId], described: Described
    ) -> frozenset[ClientId]:
        """Return the coalition: nobody, where the contrast is too low, or it may be the others.

        Parameters
        ----------
        groups
            What `observe` returned.
        clients
            Of the round.
        described
            The round's updates.
        """
        clear = groups.contrast >= self.least and groups.effect >= self.effect
        if not clear and not groups.contrast >= self.enough:
            return frozenset()
        return self._judge(groups, clients, described)

    def _judge(
        self, groups: Groups, clients: Sequence[ClientId], described: Described
    ) -> frozenset[ClientId]:
        """Return which of two groups is the coalition; a verdict stands as long as they do."""
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
        common, theirs = (float(_pairs(products[g][:, g]).mean()) for g in (small, large))
        if equal:
            return groups.smaller if common >= theirs else groups.larger
        bare = float(shares[small].mean()) < LITTLE * float(shares[large].mean())
        if not bare and theirs > MUCH * max(common, 0.0):
            self.doubted = groups.larger
            return frozenset()
        self.refused = groups.smaller
        return groups.smaller

    def pardon(self, client: ClientId) -> str:
        """Forget a client's sum and its rounds, and say how many they were."""
        self.sums.pop(client, None)
        rounds = self.seen.pop(client, 0)
        return f"what it pushed for in {rounds} rounds" if rounds else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the clients' sums and numbers of rounds, and whom it doubts."""
        clients = list(self.sums)
        return {
            "clients": clients,
            "sums": [self.sums[client] for client in clients],
            "seen": [self.seen[client] for client in clients],
            "refused": [client for client in clients if client in self.refused],
            "doubted": [client for client in clients if client in self.doubted],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.sums = dict(zip(state["clients"], state["sums"], strict=True))
        self.refused, self.doubted = frozenset(state["refused"]), frozenset(state["doubted"])
        self.seen = {c: int(n) for c, n in zip(state["clients"], state["seen"], strict=True)}
