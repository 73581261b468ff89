"""What untargeted model poisoning shares: honest training, and the updates that attackers know.

These attacks (ALIE, IPM, Min-Max, sign flipping) want the global model to be bad, not backdoored.
They train on clean data with the code path of a benign client, and compute what they send from
the resulting updates. Victim and target class, DPR and the data poison mean nothing to them.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from entity.client.attacker import Attacker
from entity.client.data import LocalData
from entity.layout import blocks
from entity.training import Recipe
from entity.updates import Updates, finite_rows

Knowledge = Literal["colluders", "omniscient"]


class Untargeted(Attacker):
    """An attacker that trains on its clean data and changes only the update that it sends."""

    needs_samples = False

    def poisoned(self) -> LocalData:
        """Return the client's data as it is."""
        return self.data

    @property
    def attack_recipe(self) -> Recipe:
        """How benign clients train, whose updates it starts from."""
        return self.honest_recipe


def known_rows(updates: Updates, malicious: Sequence[int], knowledge: Knowledge) -> list[int]:
    """Return the rows of a round that the attackers know.

    `colluders`: their own, from honest training. `omniscient`: those of all benign clients, or
    again their own where nobody in the round is benign. Updates that are not finite are nobody's
    knowledge, as no server takes them; where there are no others, the attackers' own are known.

    Parameters
    ----------
    updates
        The round.
    malicious
        The attackers' rows.
    knowledge
        Which updates they see.
    """
    finite = finite_rows(updates)
    benign = [row for row in finite if row not in malicious]
    own = [row for row in malicious if row in finite]
    return benign if knowledge == "omniscient" and benign else own or list(malicious)


def known_deltas(updates: Updates, rows: Sequence[int]) -> Iterator[tuple[slice, Tensor]]:
    """Yield blocks of columns and the deltas (k, columns) float64 of some rows in them.

    `Updates.deltas`, `norms` and the like are computed once and kept: an attack that read them
    before it rewrites its rows would leave the honest values to the server.
    """
    for columns in blocks(updates.weights.shape[1]):
        start = updates.global_weights[columns].double()
        yield columns, updates.weights[list(rows), columns].double() - start


def send(updates: Updates, malicious: Sequence[int], columns: slice, delta: Tensor) -> None:
    """Make `delta` the update of every malicious row, in a block of columns.

    Parameters
    ----------
    updates
        The round, changed in place.
    malicious
        The attackers' rows.
    columns
        The block.
    delta
        (columns,) float64.
    """
    crafted = updates.global_weights[columns].double() + delta
    updates.weights[list(malicious), columns] = crafted.float()
