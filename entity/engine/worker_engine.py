"""What engines share whose workers are other processes: a place for every model that comes back."""

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

import torch

from entity.client import Broadcast
from entity.engine.contract import Accept
from entity.engine.schedule import Memory, Turns, largest_first
from entity.layout import ModelState
from entity.setup.roster import Roster
from entity.updates import Updates


class Crew(ABC):
    """Workers that train clients, and the matrix their models are put into.

    The matrix has a row for each client of a round; where models are handed on as they come
    (`settings.streaming`), two for each worker are enough, and row r goes into place r mod slots.
    """

    def __init__(self, roster: Roster, workers: int) -> None:
        self.roster = roster
        self.memory: dict[int, Memory] = {}
        settings, rows = roster.config.settings, roster.config.federation.round_size
        self.slots = min(rows, 2 * workers) if settings.streaming else rows
        self.weights = torch.zeros(self.slots, roster.spec.num_parameters)
        self.buffers = torch.zeros(self.slots, roster.spec.num_buffers)

    def train(self, broadcast: Broadcast, client_ids: tuple[int, ...]) -> Updates:
        """Share the clients out to the workers, the largest data sets first."""
        order = largest_first(self.roster.num_samples(client_ids))
        self.run(broadcast, Turns(client_ids, order, self.memory))
        return self.roster.updates(broadcast, client_ids, self.weights, self.buffers)

    def stream(self, broadcast: Broadcast, client_ids: tuple[int, ...], accept: Accept) -> None:
        """Share the clients out in the order of their rows, and hand on their models in it."""

        def deliver(row: int) -> None:
            accept(row, self.place(row))

        order = range(len(client_ids))
        self.run(broadcast, Turns(client_ids, order, self.memory, deliver, self.slots))

    def place(self, row: int) -> ModelState:
        """Return where the model of a row of the round is put."""
        return ModelState(self.weights[row % self.slots], self.buffers[row % self.slots])

    def spoil(self, row: int) -> None:
        """Fill a row with what no server takes for an update."""
        self.place(row).weights.fill_(float("nan"))

    @abstractmethod
    def run(self, broadcast: Broadcast, turns: Turns) -> None:
        """Let the workers take turns until all clients are done."""

    @abstractmethod
    def close(self) -> None:
        """Stop the workers, whatever they do."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop what was started."""
        self.close()
