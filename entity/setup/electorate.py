"""The simulator's clients as voters, for defenses that let them judge one another's models.

Ballots are cast where the server aggregates, whatever the engine that trained: they depend on the
updates and on the clients' data alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from entity.client.ballots import false_ballot
from entity.dataset import normalise
from entity.server.votes import Vote
from entity.setup.roster import Roster
from entity.updates import Updates


@dataclass(frozen=True)
class Voters:
    """Everybody in a federation, with its own training data.

    In rounds that are poisoned all malicious clients answer as `client.attack.false_votes` says;
    else they vote as honest ones, on their clean data.
    """

    roster: Roster

    def ballots(self, updates: Updates, voters: Sequence[int], vote: Vote) -> Tensor:
        """Return the answers (v, n) of some clients of a round, true for benign; see `Electorate`.

        Parameters
        ----------
        updates
            The round.
        voters
            Rows of those who are asked.
        vote
            What honest ones do with their samples, labels and own row.
        """
        colluders = self._liars(updates)
        cast: list[Tensor] = []
        for row in voters:
            false = None
            if row in colluders:
                attack = self.roster.config.client.attack
                assert attack is not None
                false = false_ballot(attack.false_votes, row, colluders, len(updates))
            cast.append(self._honest(updates, row, vote) if false is None else false)
        return torch.stack(cast)

    def _liars(self, updates: Updates) -> list[int]:
        """Return the rows of the malicious clients, by id, in a round that any of them poisons."""
        ids = [int(client) for client in updates.client_ids]
        if not self.roster.poisoning(tuple(ids), updates.round):
            return []
        rows = [row for row, client in enumerate(ids) if client in self.roster.malicious]
        return sorted(rows, key=ids.__getitem__)

    def _honest(self, updates: Updates, row: int, vote: Vote) -> Tensor:
        client = int(updates.client_ids[row])
        own = self.roster.images.subset(self.roster.samples(client))
        return vote(normalise(own.x), own.y, row)
