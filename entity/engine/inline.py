"""Local training in this process, one client after another."""

from collections.abc import Callable

from entity.client import Broadcast
from entity.engine.contract import Engine
from entity.engine.local_training import LocalTrainer
from entity.setup.roster import Roster


class Inline(Engine):
    """The simplest engine, and the reference for all others."""

    def __init__(self, roster: Roster, window: int = 1) -> None:
        super().__init__(roster, window)
        if roster.device.type == "cuda":  # models come back several times as fast
            self.weights, self.buffers = self.weights.pin_memory(), self.buffers.pin_memory()
        self.trainer = LocalTrainer(roster)

    def run(
        self, broadcast: Broadcast, client_ids: tuple[int, ...], deliver: Callable[[int], None]
    ) -> None:
        """Train the clients in order."""
        for row, client in enumerate(client_ids):
            self.train_one(broadcast, client, row)
            deliver(row)

    def train_one(self, broadcast: Broadcast, client: int, row: int) -> None:
        """Train one client into its row of the round."""
        before = {name: tensor.clone() for name, tensor in self.memory.get(client, {}).items()}
        memory = self.trainer.train(broadcast, client, self.out(row), before)
        if memory:
            self.memory[client] = memory

    def close(self) -> None:
        """Nothing was started."""
