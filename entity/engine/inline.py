"""Local training in this process, one client after another."""

from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from entity.client import Broadcast
from entity.engine.contract import Accept
from entity.engine.local_training import Workbench
from entity.layout import ModelState
from entity.setup.roster import Roster
from entity.updates import Updates


class Inline:
    """The simplest engine, and the reference for all others."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.bench = Workbench(roster)
        streams = roster.config.settings.streaming
        rows = 1 if streams else roster.config.federation.round_size
        self.weights = torch.empty(rows, roster.spec.num_parameters)
        self.buffers = torch.empty(rows, roster.spec.num_buffers)
        self.memory: dict[int, dict[str, Tensor]] = {}
        """What clients keep from round to round, for those that keep anything."""

    def train(self, broadcast: Broadcast, client_ids: tuple[int, ...]) -> Updates:
        """Train the clients in order."""
        for row, client in enumerate(client_ids):
            self._train(broadcast, client, ModelState(self.weights[row], self.buffers[row]))
        return self.roster.updates(broadcast, client_ids, self.weights, self.buffers)

    def stream(self, broadcast: Broadcast, client_ids: tuple[int, ...], accept: Accept) -> None:
        """Train the clients in order, each into the same place."""
        out = ModelState(self.weights[0], self.buffers[0])
        for row, client in enumerate(client_ids):
            self._train(broadcast, client, out)
            accept(row, out)

    def _train(self, broadcast: Broadcast, client: int, out: ModelState) -> None:
        known = {name: kept.clone() for name, kept in self.memory.get(client, {}).items()}
        memory = self.bench.train(broadcast, client, out, known)
        if memory:
            self.memory[client] = memory

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing was started."""
