"""A federation in one process: nodes are functions, messages are Flower's own.

grid = make_grid({1: node, 2: other})
strategy.start(grid, arrays, num_rounds=2)
"""

import os
from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

import pytest
import torch
from torch import nn

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
pytest.importorskip("flwr.serverapp")

from flwr.app import ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.flower.arrays import ArrayLayout
from entity.layout import ModelState, ParamSpec
from entity.models import Classifier
from entity.seeding import Seeds, global_stream
from entity.server import Averaging, CleanData, Resources, Server
from entity.training import Recipe

TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1

Node = Callable[[Message], "Message | Exception | None"]
"""Answers a message; None is silence, an exception what Flower raises on undecodable bytes."""


class Loopback(Grid):
    """Flower's grid without a network; replies are made when they are asked for."""

    def __init__(self, nodes: dict[int, Node]) -> None:
        self.nodes = nodes
        self.sent: list[Message] = []
        self.waiting: dict[str, Message] = {}

    def set_run(self, run: Any) -> None:
        pass

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def get_node_ids(self) -> list[int]:
        return list(self.nodes)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            message.metadata.__dict__["_message_id"] = str(uuid4())
            ids.append(message.metadata.message_id)
            self.waiting[ids[-1]] = message
            self.sent.append(message)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        replies = []
        for identity in message_ids:
            message = self.waiting[identity]
            reply = self.nodes[message.metadata.dst_node_id](message)
            if reply is None:
                continue
            del self.waiting[identity]
            if isinstance(reply, Exception):
                raise reply
            replies.append(reply)
        return replies

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None):
        return self.pull_messages(self.push_messages(messages))


def net(generator: torch.Generator) -> nn.Module:
    """Build a classifier of 8x8 images with BatchNorm: floating buffers and a counter."""
    with global_stream(generator):
        body = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
        )
        return Classifier(body, nn.Linear(4 * 64, 3))


class Federation:
    """A model, its global arrays, and replies to messages made by hand."""

    def __init__(self) -> None:
        self.model = net(torch.Generator().manual_seed(1))
        self.spec = ParamSpec.of(self.model)
        self.state = self.spec.flatten(self.model)
        self.arrays = ArrayRecord(self.model.state_dict())
        self.layout = ArrayLayout.of(self.spec, self.arrays)

    def resources(self, **changes: Any) -> Resources:
        rng = torch.Generator().manual_seed(2)
        fields: dict[str, Any] = {
            "spec": self.spec,
            "build": net,
            "seeds": Seeds(5),
            "image": (1, 8),
            "classes": 3,
            "averaging": Averaging(),
            "recipe": Recipe(0.05, 0.9, 0.0, 8, 1),
            "clean": CleanData(
                torch.rand(30, 1, 8, 8, generator=rng) * 2 - 1, torch.arange(30) % 3
            ),
            "malicious_count": 1,
            "federation_size": 6,
        }
        return Resources(**(fields | changes))

    def server(self, name: str = "undefended", /, **args: Any) -> Server[Any]:
        policy = {k: args.pop(k) for k in list(args) if hasattr(Averaging, k)}
        entry = DEFENSES[name]
        resources = self.resources(averaging=Averaging(**policy))
        return entry(load(entry.hyperparameters, args), resources)

    def moved(self, node: int, round: int = 1, size: float = 0.01) -> ModelState:
        """Return the model that an honest node sends: near the start, the counter counted up."""
        rng = torch.Generator().manual_seed(node % 9973 * 100 + round)
        weights = self.state.weights + size * torch.randn(self.spec.num_parameters, generator=rng)
        step = size * torch.rand(self.spec.num_buffers, generator=rng)
        counters = self.spec.counters
        return ModelState(
            weights, torch.where(counters, self.state.buffers + node % 7, self.state.buffers + step)
        )

    def honest(self, size: float = 0.01, samples: float = 10) -> Node:
        def answer(message: Message) -> Message:
            node, round = message.metadata.dst_node_id, message.content["config"]["server-round"]
            return self.reply(message, self.layout.write(self.moved(node, round, size)), samples)

        return answer

    def changed(self, change: Callable[[ArrayRecord], Any]) -> Node:
        """Return a node that spoils its honest arrays before it sends them."""

        def answer(message: Message) -> Message:
            arrays = self.layout.write(self.moved(message.metadata.dst_node_id))
            change(arrays)
            return self.reply(message, arrays)

        return answer

    @staticmethod
    def reply(message: Message, arrays: ArrayRecord, samples: Any = 10) -> Message:
        metrics = MetricRecord({"num-examples": samples})
        return Message(RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    @staticmethod
    def failing(reason: str = "CUDA out of memory") -> Node:
        return lambda message: Message(Error(2, reason), reply_to=message)


@pytest.fixture(scope="session")
def federation() -> Federation:
    """`Federation`."""
    return Federation()


@pytest.fixture(scope="session")
def make_grid() -> Callable[[dict[int, Node]], Loopback]:
    """`Loopback`."""
    return Loopback
