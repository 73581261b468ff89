"""Training one client after another, as a worker or a Flower node does."""

import copy
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from entity.client import Broadcast
from entity.engine.compiler import compile_model
from entity.layout import ModelState
from entity.models import find
from entity.seeding import global_stream
from entity.setup.roster import Roster


class LocalTrainer:
    """Trains one client at a time in the calling process, with one thread."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        self.model = roster.new_model()
        config = roster.config
        self._anew = bool(config.plugins) or find(config.model).own
        """Whether code of the user's own may leave something on a module: attributes, hooks."""
        if config.settings.compile:
            compile_model(self.model)
        self._last: tuple[Broadcast, ModelState] | None = None

    def train(
        self, broadcast: Broadcast, client_id: int, out: ModelState, memory: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """Train a client.

        Parameters
        ----------
        broadcast
            The global model.
        client_id
            Who trains.
        out
            Vectors that the trained model is written into.
        memory
            What the client has kept from its last round.

        Returns
        -------
        dict
            What it keeps for its next one.
        """
        spec = self.roster.spec
        with single_threaded():
            client = self.roster.client(client_id)
            client.load_state_dict(memory)
            model = self.fresh()
            spec.load(model, self._received(broadcast))
            stream = self.roster.seeds.generator(
                "global stream", round=broadcast.round, client=client_id
            )
            with global_stream(stream):  # dropout draws from it
                client.fit(model, broadcast)
            spec.flatten_into(model, out)
        return client.state_dict()

    def fresh(self) -> nn.Module:
        """Return a module on which no client before has left anything but its weights."""
        if not self._anew or self.roster.config.settings.compile:  # a copy would be compiled again
            return self.model
        try:
            return copy.deepcopy(self.model)
        except (RuntimeError, TypeError):  # one that holds a tensor of a graph, or a lock
            return self.roster.new_model()

    def _received(self, broadcast: Broadcast) -> ModelState:
        """Return the global model on the clients' device, sent there once for a broadcast."""
        if self.roster.device.type == "cpu":
            return broadcast.state
        if self._last is None or self._last[0] is not broadcast:
            vectors = (vector.to(self.roster.device) for vector in broadcast.state)
            self._last = broadcast, ModelState(*vectors)
        return self._last[1]


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


_alone = threading.Lock()


@contextmanager
def single_threaded() -> Generator[None]:
    """Run a block with one thread: sums over 1 and over 2 threads differ in their last bits."""
    with _alone, threads(1):
        yield


@contextmanager
def threads(number: int) -> Generator[None]:
    """Let PyTorch use so many threads, 0 for one a core, and put the number back on leaving."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or cores())
    try:
        yield
    finally:
        torch.set_num_threads(before)
