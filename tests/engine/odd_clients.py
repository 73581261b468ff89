"""Clients that remember, die and fail, and their model; worker processes import this module."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

from entity.client import Client
from entity.models import Classifier

DIES_ONCE, DIES_TWICE, FAILS, NODE_DIES = 10, 11, 12, 13
"""Rounds in which client 2 dies at its first try, dies at every try, client 1 fails, and whoever
trains first on a node that is marked for it takes this node along."""


def net(channels, size, classes):
    """A convolution, BatchNorm, dropout and a head: buffers, counters and a global stream."""
    features = nn.Sequential(
        nn.Conv2d(channels, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Flatten(),
    )
    return Classifier(features, nn.Linear(8 * ((size - 1) // 2) ** 2, classes))


class Odd(Client):
    """Adds to its model how often it trained, which it remembers as an attack would its mask."""

    seen = torch.zeros(1)

    def fit(self, model, broadcast):
        super().fit(model, broadcast)
        if broadcast.round == FAILS and self.id == 1:
            raise ValueError("the lens cap is on")
        if broadcast.round in (DIES_ONCE, DIES_TWICE) and self.id == 2:
            self._die(broadcast.round)
        if broadcast.round == NODE_DIES and "ODD_NODE" in os.environ:
            os.kill(os.getppid(), signal.SIGKILL)  # the node's own process, which started us
            self._die(broadcast.round)
        self.seen = self.seen + 1
        bias = next(model.parameters())
        with torch.no_grad():
            bias.add_(self.seen / 64)
            if broadcast.previous is not None:
                bias.add_(broadcast.previous[0])

    def _die(self, round):
        mark = Path(os.environ["ODD_CLIENTS"], f"died-{round}")
        if round in (DIES_TWICE, NODE_DIES) or not mark.exists():
            with mark.open("a") as file:
                file.write(f"{os.getpid()}\n")
            os.kill(os.getpid(), signal.SIGKILL)

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state.get("seen", self.seen)
