"""What an engine is: where local training happens, as the experiment sees it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from entity.client import Broadcast
from entity.config.schema import CannotGoOn
from entity.layout import ModelState
from entity.setup.roster import Roster
from entity.updates import Updates

Accept = Callable[[int, ModelState], None]
"""Takes the model of a row of the round; it is overwritten as soon as this returns."""

ClientMemory = dict[str, Tensor]
"""What a client keeps from round to round."""


class NoWorkers(CannotGoOn):
    """Worker processes do not start, or all those of a round died."""


class Engine(ABC):
    """Trains the selected clients of a round; use it as a context manager.

    Every engine trains a client with one thread, the same memory format and the same optimiser,
    from the client's own random streams: their updates are identical to the bit.

    Trained models are written into a matrix. It has a row for each client of a round; where models
    are streamed (`settings.streaming`) it has `window` rows, and row r of the round is written
    into row r mod `window`.

    Parameters
    ----------
    roster
        The federation.
    window
        Models that are held at once where they are streamed.
    """

    memory: dict[int, ClientMemory]
    """What clients keep from round to round, by id, for those that keep anything.

    It is also the last checkpoint's: entries are replaced, never changed.
    """

    def __init__(self, roster: Roster, window: int) -> None:
        self.roster = roster
        self.memory = {}
        settings, rows = roster.config.settings, roster.config.federation.round_size
        self.rows = min(rows, window) if settings.streaming else rows
        self.weights = torch.zeros(self.rows, roster.spec.num_parameters)
        self.buffers = torch.zeros(self.rows, roster.spec.num_buffers)

    def train(self, broadcast: Broadcast, client_ids: tuple[int, ...]) -> Updates:
        """Return the clients' updates, in the order of `client_ids`.

        A client whose worker was lost, and lost again, has none. The matrix belongs to the engine
        and is overwritten in the next round.

        Raises
        ------
        NoWorkers
            If no client has an update.
        """
        trained: list[int] = []
        self.run(broadcast, client_ids, trained.append)
        updates = self.roster.updates(broadcast, client_ids, self.weights, self.buffers)
        return updates.select(trained)

    def stream(self, broadcast: Broadcast, client_ids: tuple[int, ...], accept: Accept) -> None:
        """Give the clients' models to `accept` one by one, and keep none.

        Parameters
        ----------
        broadcast
            The global model.
        client_ids
            Who trains.
        accept
            Called with the row and the model of each client, in the order of `client_ids`; not
            with those of clients whose workers were lost.

        Raises
        ------
        NoWorkers
            If no client has a model.
        """
        self.run(broadcast, client_ids, lambda row: accept(row, self.out(row)))

    def out(self, row: int) -> ModelState:
        """Return the vectors, views of the matrix, that the model of a row is written into."""
        return ModelState(self.weights[row % self.rows], self.buffers[row % self.rows])

    @abstractmethod
    def run(
        self, broadcast: Broadcast, client_ids: tuple[int, ...], deliver: Callable[[int], None]
    ) -> None:
        """Train clients, each into `self.out(row)`.

        Parameters
        ----------
        broadcast
            The global model.
        client_ids
            Who trains, by row of the round.
        deliver
            Called with each row, from 0 up, once its model is there; rows of clients whose workers
            were lost are left out. The next row that shares a row's place in the matrix is trained
            only afterwards.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop what the engine started."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
