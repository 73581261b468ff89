"""The federation of `peers.py` in Flower's simulation, as a user of Flower would write it.

FedAvg, and a client app of the message API whose local training is the loop of Flower's PyTorch
quick start: a DataLoader over the client's tensors and SGD. Started by `peers.py` inside a network
namespace of its own, since Ray listens on the machine's own address.
"""

import json
import sys
import time
from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation
from shared_federation import SharedFederation, cached
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset


def federation(
    path: Path,
) -> tuple[ServerApp, ClientApp, list[float], list[float], list[int]]:
    """Return the two apps, and where seconds, accuracy and replies of each round will be put."""
    client, server = ClientApp(), ServerApp()
    seconds: list[float] = []
    scores: list[float] = []
    replies: list[int] = []

    @client.train()
    def train(message: Message, context: Context) -> Message:
        federation = cached(path)
        x, y = federation.clients[int(context.node_config["partition-id"])]
        loader = DataLoader(TensorDataset(x, y), batch_size=federation.batch, shuffle=True)
        model = federation.fresh_model()
        model.load_state_dict(message.content["arrays"].to_torch_state_dict())
        model.train()
        optimiser = optim.SGD(model.parameters(), lr=federation.lr)
        criterion = nn.CrossEntropyLoss()
        for _ in range(federation.epochs):
            for images, labels in loader:
                optimiser.zero_grad()
                criterion(model(images), labels).backward()
                optimiser.step()
        content = RecordDict(
            {
                "arrays": ArrayRecord(model.state_dict()),
                "metrics": MetricRecord({"num-examples": len(y)}),
            }
        )
        return Message(content=content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        federation = SharedFederation.load(path)
        model = federation.fresh_model()
        clients = len(federation.clients)
        began = 0.0

        def evaluate(number: int, arrays: ArrayRecord) -> MetricRecord:
            nonlocal began
            if number:
                seconds.append(time.perf_counter() - began)
                model.load_state_dict(arrays.to_torch_state_dict())
                scores.append(federation.accuracy(model))
            began = time.perf_counter()
            return MetricRecord({"accuracy": scores[-1] if scores else 0.0})

        def count(contents: list[RecordDict], key: str) -> MetricRecord:
            replies.append(len(contents))
            return MetricRecord({"replies": len(contents)})

        FedAvg(
            fraction_evaluate=0.0,
            min_available_nodes=clients,
            min_train_nodes=clients,
            train_metrics_aggr_fn=count,
        ).start(grid, ArrayRecord(model.state_dict()), federation.rounds, evaluate_fn=evaluate)

    return server, client, seconds, scores, replies


def main() -> int:
    """Run it and print its figures as JSON, the last line."""
    path = Path(sys.argv[1])
    shared = SharedFederation.load(path)
    server, client, seconds, scores, replies = federation(path)
    run_simulation(
        server,
        client,
        num_supernodes=len(shared.clients),
        backend_config={
            "init_args": {"num_cpus": shared.workers},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    # Flower only logs clients that fail, and the round is all the faster.
    if replies != [len(shared.clients)] * shared.rounds:
        print(f"replies in the rounds: {replies}", file=sys.stderr)
        return 1
    print(json.dumps({"seconds": seconds, "mta": scores}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
