"""The federation of `peers.py` in blazefl, with its own FedAvg and its own training loop.

    python peer_blazefl.py HANDOUT processes|threads

Run by `peers.py` with a Python of 3.13 or newer that has blazefl; `entity` is found by PYTHONPATH.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from enum import StrEnum
from pathlib import Path

import torch
from blazefl.contrib import (
    FedAvgBaseServerHandler,
    FedAvgProcessPoolClientTrainer,
    FedAvgThreadPoolClientTrainer,
)
from blazefl.core import IPCMode
from shared_federation import SharedFederation
from torch import Generator, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset


class Partitions:
    """The clients' data as blazefl asks for it: a file for each, as in its examples.

    It is sent to the workers with every client, so it holds no data.
    """

    def __init__(self, federation: SharedFederation, folder: Path) -> None:
        self.folder = folder
        torch.save(federation.test, folder / "None.pt")
        for cid, data in enumerate(federation.clients):
            torch.save(data, folder / f"{cid}.pt")

    def get_dataset(self, type_: StrEnum, cid: int | None) -> Dataset:
        """Return a client's tensors, or the test set."""
        return TensorDataset(*torch.load(self.folder / f"{cid}.pt", weights_only=True))

    def set_dataset(self, type_: StrEnum, cid: int | None, dataset: Dataset) -> None:
        """Keep nothing: training does not change the data."""

    def get_dataloader(
        self,
        type_: StrEnum,
        cid: int | None,
        batch_size: int | None,
        generator: Generator | None,
    ) -> DataLoader:
        """Return a shuffled loader."""
        return DataLoader(
            self.get_dataset(type_, cid), batch_size, shuffle=True, generator=generator
        )


class Selector:
    """The model as blazefl asks for it."""

    def __init__(self, federation: SharedFederation) -> None:
        nothing = (torch.empty(0), torch.empty(0))
        # Without data, since it is sent to the workers, too.
        self.federation = replace(federation, clients=[], test=nothing)

    def select_model(self, model_name: str) -> nn.Module:
        """Return the model with its first weights."""
        return self.federation.fresh_model()


def main() -> int:
    """Run it and print its figures as JSON, the last line."""
    federation = SharedFederation.load(Path(sys.argv[1]))
    clients = len(federation.clients)
    seconds: list[float] = []
    scores: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        partitions, selector = Partitions(federation, place), Selector(federation)
        handler = FedAvgBaseServerHandler(
            selector, federation.model, partitions, federation.rounds, clients, 1.0, "cpu", 500, 1
        )
        rates = (federation.epochs, federation.batch, federation.lr)
        recipe = ("cpu", clients, *rates, 1, federation.workers)
        trainer = (
            FedAvgThreadPoolClientTrainer(selector, federation.model, partitions, *recipe)
            if sys.argv[2] == "threads"
            else FedAvgProcessPoolClientTrainer(
                *(selector, federation.model, place / "share", place / "state", partitions),
                *recipe,
                IPCMode.SHARED_MEMORY,
            )
        )
        while not handler.if_stop():
            began = time.perf_counter()
            sampled = handler.sample_clients()
            trainer.local_process(handler.downlink_package(), sampled)
            for package in trainer.uplink_package():
                handler.load(package)
            seconds.append(time.perf_counter() - began)
            scores.append(federation.accuracy(handler.model))
    print(json.dumps({"seconds": seconds, "mta": scores}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
