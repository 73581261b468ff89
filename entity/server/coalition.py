"""Who pushes together, round after round, where no clean image looks.

What attackers teach is the same in every round and the same for all of them; the noise of
training is neither. And what they teach is in the part of their updates that clean images do not
show (`visible.py`), while what a client's own mix of classes makes of its update is for the
most part in the other. So a client is described by the invisible part of its update, layer by
layer less the round's mean and scaled to length one, and these descriptions are added up over the
rounds. Average linkage of the cosines of the sums (UPGMA; Sokal and Michener 1958) gives two
groups. The smaller one is a coalition if its members agree with each other, and the others with
each other, clearly more than the two groups do.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from entity.seeding import Seeds
from entity.server.visible import View
from entity.updates import ClientId, rows_by_id

WIDTH = 16_384
"""Entries of a description: 64 kB a client."""

ROWS = 64
"""Outputs of a layer that are looked at: drawn at random, the same in all rounds."""

LEAST = 4
"""Clients that two groups are looked for among: two of each could be told apart."""


class Groups(NamedTuple):
    """Two groups of clients, and how far apart they are."""

    smaller: frozenset[ClientId]
    """No client, where there are too few to look for groups."""
    contrast: float
    """Mean cosine within a group, the lower one of the two, minus that between them; NaN where
    there are no two groups of two or more."""


def descriptions(updates: Tensor, of: Sequence[View], seeds: Seeds) -> Tensor:
    """Return what the invisible parts of updates are like: (n, WIDTH), rows of length one or zero.

    Parameters
    ----------
    updates
        (n, P) differences of weights.
    of
        The model's views.
    seeds
        Of the server: the outputs that are looked at and the signs of the sketch (Charikar et
        al., "Finding Frequent Items in Data Streams", 2002) are the same in every round.
    """
    n = len(updates)
    sketch = torch.zeros(n, WIDTH)
    for view in of:
        generator = seeds.generator(f"sketch of {view.name}")
        part = view.of(updates)
        drawn = torch.randperm(part.shape[-2], generator=generator)[:ROWS]
        part = part[..., drawn, :]
        hidden = (part - view.visible(part)).flatten(1)
        own = hidden - hidden.mean(0)
        own = own / own.norm(dim=1, keepdim=True).clamp_min(1e-30)
        places = torch.randint(WIDTH, (own.shape[1],), generator=generator)
        signs = torch.randint(2, (own.shape[1],), generator=generator) * 2.0 - 1
        sketch.index_add_(1, places, own * signs)
    return sketch / sketch.norm(dim=1, keepdim=True).clamp_min(1e-30)


def two_groups(sums: Mapping[ClientId, Tensor]) -> Groups:
    """Split clients into two groups by the cosines of their sums (D,).

    Of two groups of one size the one whose members agree more counts as the smaller.

    Examples
    --------
    >>> a, b = torch.tensor([1.0, 0.1]), torch.tensor([0.0, 1.0])
    >>> groups = two_groups({0: a, 1: b, 2: a, 3: a, 4: b})
    >>> sorted(groups.smaller), round(groups.contrast, 2)
    ([1, 4], 0.9)
    """
    ids = list(sums)
    ids = [ids[row] for row in rows_by_id(ids)]
    if len(ids) < LEAST:
        return Groups(frozenset(), float("nan"))
    rows = torch.stack([sums[client] for client in ids]).double()
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-30)
    cosines = rows @ rows.T
    apart = (1 - cosines).clamp_min(0).fill_diagonal_(0)
    tree = linkage(squareform(apart.numpy(), checks=False), method="average")
    labels = torch.from_numpy(fcluster(tree, 2, "maxclust"))
    first, second = (torch.nonzero(labels == label)[:, 0] for label in (1, 2))
    if not len(first) or not len(second):  # all alike
        return Groups(frozenset(), float("nan"))

    def within(group: Tensor) -> float:
        size = len(group)
        inner = cosines[group][:, group]
        pairs = size * (size - 1)
        return float((inner.sum() - inner.diagonal().sum()) / pairs) if pairs else float("nan")

    small, large = sorted([first, second], key=lambda group: (len(group), -within(group)))
    between = float(cosines[small][:, large].mean())
    contrast = min(within(small), within(large)) - between if len(small) > 1 else float("nan")
    return Groups(frozenset(ids[row] for row in small.tolist()), contrast)


class Coalition:
    """The sums of descriptions of the clients seen so far, and the coalition among them."""

    def __init__(self, threshold: float, patience: int, memory: float) -> None:
        self.threshold = threshold
        """Contrast from which on the smaller group is a coalition."""
        self.patience = patience
        """Rounds of a client before it is compared."""
        self.memory = memory
        """What a round of a client still counts one round of its own later."""
        self.sums: dict[ClientId, Tensor] = {}
        self.seen: dict[ClientId, int] = {}

    def observe(self, clients: Sequence[ClientId], described: Tensor) -> Groups:
        """Add a round's descriptions (n, D); return the two groups of all who can be compared."""
        for client, row in zip(clients, described, strict=True):
            before = self.sums.get(client)
            self.sums[client] = row.clone() if before is None else self.memory * before + row
            self.seen[client] = self.seen.get(client, 0) + 1
        known = {c: each for c, each in self.sums.items() if self.seen[c] >= self.patience}
        return two_groups(known)

    def members(self, groups: Groups) -> frozenset[ClientId]:
        """Return the coalition: nobody, where the contrast is too low."""
        return groups.smaller if groups.contrast >= self.threshold else frozenset()

    def pardon(self, client: ClientId) -> str:
        """Forget a client's sum and its rounds, and say how many they were."""
        self.sums.pop(client, None)
        rounds = self.seen.pop(client, 0)
        return f"what it pushed for in {rounds} rounds" if rounds else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the clients' sums and numbers of rounds."""
        clients = list(self.sums)
        return {
            "clients": clients,
            "sums": [self.sums[client] for client in clients],
            "seen": [self.seen[client] for client in clients],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self.sums = dict(zip(state["clients"], state["sums"], strict=True))
        self.seen = {c: int(n) for c, n in zip(state["clients"], state["seen"], strict=True)}
