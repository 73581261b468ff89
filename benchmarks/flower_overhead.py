"""What RobustStrategy costs a round, against Flower's own FedAvg and MultiKrum.

    python benchmarks/flower_overhead.py

The same replies of 10 nodes, models of 1M and 11M parameters, in memory: no network, no training.
Each strategy aggregates them in turn, five times, interleaved; the figure is the smallest CPU time,
and the ratio is to FedAvg. The table goes into docs/RESULTS.md.
"""

import argparse
import logging
import platform
import time
from collections.abc import Callable
from typing import Any, cast

import torch
from aggregate import SIZES, perceptron
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, MultiKrum, Strategy
from flwr.supercore.task_identity import TaskIdentity
from pages import RESULTS, commit, markdown, put_section

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.flower import RobustStrategy
from entity.layout import ParamSpec
from entity.seeding import Seeds
from entity.server import Averaging, Resources
from entity.training import Recipe

NODES = 10
REPEATS = 5
FAULTY = 2
"""f of both MultiKrums."""


class Nodes:
    """As much of Flower's grid as choosing nodes needs."""

    def get_node_ids(self) -> list[int]:
        """Return the ids of the nodes."""
        return list(range(1, NODES + 1))


def robust(defense: str, size: str, **settings: Any) -> RobustStrategy:
    """Return the strategy with one of the project's defenses."""
    rng = torch.Generator().manual_seed(1)
    resources = Resources(
        ParamSpec.of(perceptron(SIZES[size], rng)),
        lambda generator: perceptron(SIZES[size], generator),
        Seeds(1),
        (1, 28),
        10,
        Averaging(),
        Recipe(0.1, 0.9, 5e-4, 32, 2),
    )
    entry = DEFENSES[defense]
    return RobustStrategy(entry(load(entry.hyperparameters, settings), resources))


def strategies(size: str) -> dict[str, Callable[[], Strategy]]:
    """Return what is compared, by name."""
    kept = NODES - FAULTY
    flowers = {"num_malicious_nodes": FAULTY, "num_nodes_to_select": kept}
    return {
        "Flower FedAvg": FedAvg,
        "RobustStrategy, undefended": lambda: robust("undefended", size),
        "RobustStrategy, median": lambda: robust("median", size),
        "Flower MultiKrum": lambda: MultiKrum(**flowers),
        "RobustStrategy, multikrum": lambda: robust("multikrum", size, f=FAULTY, multi_k=kept),
        "RobustStrategy, droplet": lambda: robust("droplet", size),
    }


def measure(size: str) -> dict[str, float]:
    """Return the smallest CPU seconds of `aggregate_train` by strategy."""
    rng = torch.Generator().manual_seed(2)
    start = perceptron(SIZES[size], rng).state_dict()
    arrays = ArrayRecord(dict(start))
    sent = [
        ArrayRecord({k: v + 0.01 * torch.randn(v.shape, generator=rng) for k, v in start.items()})
        for _ in range(NODES)
    ]
    found: dict[str, float] = {}
    for _ in range(REPEATS):
        for name, make in strategies(size).items():
            strategy = make()
            grid = cast(Grid, Nodes())
            asked = strategy.configure_train(1, arrays, ConfigRecord(), grid)
            replies = [
                Message(
                    RecordDict({"arrays": own, "metrics": MetricRecord({"num-examples": 10})}),
                    reply_to=message,
                )
                for message, own in zip(asked, sent, strict=True)
            ]
            began = time.process_time()
            strategy.aggregate_train(1, replies)
            seconds = time.process_time() - began
            found[name] = min(seconds, found.get(name, seconds))
    return found


def main() -> int:
    """Measure both sizes and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--dry-run", action="store_true", help="print the table, write nothing")
    options = parser.parse_args()
    for name in ("entity", "flwr"):
        logging.getLogger(name).setLevel(logging.ERROR)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    torch.set_num_threads(1)
    columns = {size: measure(size) for size in options.sizes}
    rows = [
        [name]
        + [
            cell
            for column in columns.values()
            for cell in (f"{column[name]:.3f}", f"{column[name] / column['Flower FedAvg']:.2f}")
        ]
        for name in strategies(options.sizes[0])
    ]
    heads = ["strategy"]
    for size in columns:
        heads += [f"{size}: CPU seconds", "x FedAvg"]
    table = markdown(heads, rows)
    print(table)
    if not options.dry_run:
        put_section(
            RESULTS,
            "flower",
            "## What the strategy costs in Flower\n\n"
            f"CPU seconds to aggregate the same replies of {NODES} nodes, in memory, one thread, "
            f"the smallest of {REPEATS} interleaved repeats. A defense reads, checks and judges "
            "every reply; training and transport are the same for all.\n\n"
            + table
            + f"\n\n`python benchmarks/flower_overhead.py` at commit {commit()}, "
            f"{platform.machine()}.",
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
