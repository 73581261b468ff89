"""A node of a Flower federation that trains as one of the simulator's clients.

Node `partition-id` is client `partition-id`: it holds that client's share of the data and draws
from that client's random streams, so its update is the simulator's to the bit. A node knows only
the models that it was sent, and learns alone: where not all nodes are asked in every round,
Neurotoxin's reference is what has changed since its own last one, and attackers who learn a
trigger (A3FL, IBA) have one each. The experiment says whether it attacks (`client.attack`,
`number_of_malicious_clients`), for drills of defenses; that of a real federation has no attack.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from torch import Tensor

from entity.client import Broadcast
from entity.config.schema import ConfigError, unknown
from entity.engine.allocator import keep_pages
from entity.engine.local_training import LocalTrainer, threads
from entity.flower.arrays import ArrayLayout
from entity.flower.faults import FAULTS
from entity.flower.intake import ARRAYS, CONFIG, METRICS, SAMPLES
from entity.flower.run_config import experiment
from entity.seeding import Seeds
from entity.setup.assembly import recruit
from entity.setup.single_samples import check_batches

MEMORY, TRIGGER, LAST = "client memory", "trigger", "last global weights"
"""Names of the records that a node keeps from round to round in its Flower context."""


def client_app(path: Path) -> ClientApp:
    """Return the client app of an experiment, given as for `drop run --config`."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:  # pyright: ignore[reportUnusedFunction]
        return answer(message, context, path)

    return app


def answer(message: Message, context: Context, path: Path) -> Message:
    """Train the node's client on the global model of a message, and reply with its update.

    Parameters
    ----------
    message
        The global model and the number of the round.
    context
        The node's config, its run config, and its state from earlier rounds.
    path
        File of the experiment.

    Raises
    ------
    ConfigError
        If the node's config does not fit the experiment; Flower replies with an error then.
    """
    trainer = _trainer(path, tuple(sorted(context.run_config.items())))
    roster = trainer.roster
    client, fault = _who(context.node_config, roster.config.federation.size)
    arrays = message.content.array_records[ARRAYS]
    layout = ArrayLayout.of(roster.spec, arrays)
    state = layout.read(arrays, layout.empty())
    number = message.content.config_records[CONFIG]["server-round"]
    assert isinstance(number, int)
    last = _recall(context, LAST).get("weights")
    broadcast = Broadcast(number, state, last, _recall(context, TRIGGER))
    with threads(roster.config.settings.num_threads):
        broadcast = roster.adapt(broadcast, roster.colluders((client,), number))
    out = layout.empty()
    memory = trainer.train(broadcast, client, out, _recall(context, MEMORY))
    _remember(context, MEMORY, memory)
    _remember(context, TRIGGER, broadcast.trigger)
    if client in roster.malicious:  # only attackers watch how the global model moves
        _remember(context, LAST, {"weights": state.weights})
    reply = layout.write(out)
    if fault is not None:
        FAULTS[fault](reply)
    metrics = MetricRecord({SAMPLES: int(roster.num_samples((client,))[0])})
    return Message(RecordDict({ARRAYS: reply, METRICS: metrics}), reply_to=message)


@lru_cache(maxsize=1)
def _trainer(path: Path, given: tuple[tuple[str, Any], ...]) -> LocalTrainer:
    """Load the data and build the model, once in a process."""
    keep_pages()
    config = experiment(path, dict(given))
    roster = recruit(config, Seeds(config.settings.seed))[1]
    check_batches(config, roster)
    return LocalTrainer(roster)


def _who(node: Mapping[str, Any], size: int) -> tuple[int, str | None]:
    """Return which client a node is, and its fault for drills."""
    client, fault = node.get("partition-id"), node.get("fault")
    if not isinstance(client, int) or not 0 <= client < size:
        raise ConfigError(
            f"node-config: partition-id = {client}: allowed is a whole number from 0 to {size - 1}."
        )
    if node.get("num-partitions", size) != size:
        raise ConfigError(
            f"node-config: num-partitions = {node['num-partitions']}: federation.size is {size}."
        )
    if fault is not None and fault not in FAULTS:
        raise ConfigError(unknown(f"node-config: fault = {fault}", str(fault), FAULTS))
    return client, fault


def _recall(context: Context, name: str) -> dict[str, Tensor]:
    record = context.state.array_records.get(name)
    return {} if record is None else dict(record.to_torch_state_dict())


def _remember(context: Context, name: str, tensors: Mapping[str, Tensor]) -> None:
    if tensors:
        context.state[name] = ArrayRecord(
            {key: torch.as_tensor(tensor) for key, tensor in tensors.items()}
        )


__all__ = ["answer", "client_app"]
