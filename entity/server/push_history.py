"""What clients push for: what their updates are like, added up over the rounds.

What attackers teach is the same in every round and the same for all of them; the noise of training
is neither. So descriptions of a client's updates (`sketches.py`) are added up over the rounds, and
clients are compared by the cosines of the sums. What their amounts of data account for is no
agreement (`amounts.py`).
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from entity.server.amounts import without_amounts
from entity.server.sketches import unit
from entity.updates import ClientId, rows_by_id

MOST = 1_000
"""Clients that are remembered: of more, those who came last. Their sums take 100 MB, and two groups
of them some seconds, whoever else has ever come."""


class PushHistory:
    """The sums of descriptions of the clients seen so far.

    Parameters
    ----------
    patience
        Rounds of a client before it is compared.
    memory
        What a round of a client still counts one round of its own later.
    """

    def __init__(self, patience: int, memory: float) -> None:
        self.patience, self.memory = patience, memory
        self.sums: dict[ClientId, Tensor] = {}
        self.seen: dict[ClientId, int] = {}
        self.samples: dict[ClientId, float] = {}
        """How much data each had when it came last."""
        self._compared: tuple[dict[ClientId, int], Tensor] | None = None
        """The rows of all who can be compared, and their cosines."""

    def observe(
        self,
        clients: Sequence[ClientId],
        described: Tensor,
        samples: Tensor,
        known: Collection[ClientId] = (),
        most: int = MOST,
    ) -> None:
        """Add a round.

        Parameters
        ----------
        clients
            Who came.
        described
            (n, D) their descriptions.
        samples
            (n,) how much data each has.
        known
            Clients who are remembered however long they have been away.
        most
            How many are remembered, beside those; who came are, however many they are.
        """
        self._compared = None
        for at in rows_by_id(clients):
            client, row = clients[at], described[at]
            before = self.sums.pop(client, None)  # and to the end: it came last
            self.sums[client] = row.clone() if before is None else self.memory * before + row
            self.seen[client] = self.seen.get(client, 0) + 1
            self.samples[client] = samples[at].item()
        away = [client for client in self.sums if client not in known]
        for client in away[: -max(most, len(clients))]:
            del self.sums[client], self.seen[client], self.samples[client]

    def known(self, without: Collection[ClientId] = ()) -> list[ClientId]:
        """Return who can be compared, without some, in the order of their ids."""
        known = [c for c, n in self.seen.items() if n >= self.patience and c not in without]
        return [known[row] for row in rows_by_id(known)]

    def cosines(self, clients: Sequence[ClientId]) -> Tensor:
        """Return the cosines (n, n) of the sums of some who can be compared, in double precision.

        What they owe to their amounts of data is taken out.
        """
        if self._compared is None:
            known = self.known()
            sums = unit(torch.stack([self.sums[client] for client in known]).double())
            self._compared = {client: row for row, client in enumerate(known)}, sums @ sums.T
        of, cosines = self._compared
        rows = torch.tensor([of[client] for client in clients])
        samples = torch.tensor([self.samples[client] for client in clients])
        return without_amounts(cosines[rows][:, rows], samples)

    def pardon(self, client: ClientId) -> str:
        """Forget a client's sum and its rounds, and say how many they were."""
        self._compared = None
        for known in (self.sums, self.samples):
            known.pop(client, None)
        rounds = self.seen.pop(client, 0)
        return f"what it pushed for in {rounds} rounds" if rounds else ""

    def state_dict(self) -> dict[str, Any]:
        """Return the clients' sums, numbers of rounds and amounts of data."""
        clients = list(self.sums)
        return {
            "clients": clients,
            "sums": [self.sums[client] for client in clients],
            "seen": [self.seen[client] for client in clients],
            "samples": [self.samples[client] for client in clients],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._compared = None
        self.sums = dict(zip(state["clients"], state["sums"], strict=True))
        self.seen = {c: int(n) for c, n in zip(state["clients"], state["seen"], strict=True)}
        self.samples = dict(zip(state["clients"], state["samples"], strict=True))
