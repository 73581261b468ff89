"""How close a round of the federation comes to its bare optimiser steps.

    python benchmarks/round.py

The floor of a round is the time of as many optimiser steps of the same model with the same batch
sizes, optimiser, memory format and allocator in a loop that does nothing else, on batches that are
ready in memory: for the pool in as many processes of one thread as it has workers, for the inline
engine in one. Floor and round alternate, so what else the machine does falls on both; the ratio is
the median over the pairs. A round is everything but the evaluation on test data: drawing the
clients, local training, aggregation, writing the record. The table goes into docs/PERFORMANCE.md.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from random_images import register_random_images
from torch import multiprocessing

from entity import experiment
from entity.engine import cores
from entity.engine.allocator import keep_pages
from entity.models import build
from entity.setup import resolve
from entity.training import cross_entropy

CLIENTS = 20


@dataclass(frozen=True)
class Case:
    """A federation of which every client takes part in every round."""

    model: str
    channels: int
    size: int
    samples: int
    """Of each client."""
    epochs: int
    batch: int
    augmented: bool = False
    engine: str = "pool"
    clients: int = CLIENTS

    @property
    def steps(self) -> list[int]:
        """Batch sizes of one client's optimiser steps."""
        full, rest = divmod(self.samples, self.batch)
        return ([self.batch] * full + [rest] * bool(rest)) * self.epochs


CASES = (
    Case("cnn", 1, 28, 1000, 2, 64),
    Case("cnn", 1, 28, 1000, 2, 64, engine="inline", clients=10),
    Case("cnn", 1, 28, 200, 2, 32),
    Case("cnn", 1, 28, 1000, 2, 64, augmented=True),
    Case("resnet8", 3, 32, 250, 1, 64),
    Case("resnet8", 3, 32, 250, 1, 64, engine="inline", clients=10),
    Case("resnet8", 3, 32, 250, 1, 64, augmented=True),
)
TINY = (Case("cnn", 1, 28, 20, 1, 10, clients=2),)
"""What a test runs."""


@dataclass(frozen=True)
class Pair:
    """One round and its floor: wall seconds, and CPU seconds of all processes of each."""

    floor: float
    floor_cpu: float
    round: float
    round_cpu: float
    aggregate: float


class Floor:
    """Processes of one thread that take a case's optimiser steps and nothing else."""

    def __init__(self, case: Case, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection[Any, Any]] = []
        self.processes: list[Any] = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            clients = len(range(number, case.clients, processes))
            process = context.Process(target=_steps, args=(case, clients, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self.processes.append(process)

    @property
    def pids(self) -> list[int]:
        """The processes."""
        return [process.pid for process in self.processes]

    def __call__(self) -> float:
        """Return the seconds until all processes are done."""
        began = time.perf_counter()
        for pipe in self._pipes:
            pipe.send(True)
        for pipe in self._pipes:
            pipe.recv()
        return time.perf_counter() - began

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self._pipes, self.processes, strict=True):
            pipe.close()
            process.join()


def _steps(case: Case, clients: int, pipe: "Connection[Any, Any]") -> None:
    torch.set_num_threads(1)
    keep_pages()
    rng = torch.Generator().manual_seed(1)
    model = build(case.model, case.channels, case.size, 10, rng)
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4, fused=True
    )
    batches = [
        (
            torch.rand(size, case.channels, case.size, case.size, generator=rng)
            .mul(2)
            .sub(1)
            .contiguous(memory_format=torch.channels_last),
            torch.arange(size) % 10,
        )
        for size in case.steps
    ]
    model.train()
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        for _ in range(clients):
            for x, y in batches:
                loss = cross_entropy(model, x, y)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
        pipe.send(True)


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU seconds that processes have used so far; NaN where there is no /proc."""
    if not Path("/proc/self/schedstat").exists():
        return float("nan")
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").glob("*/schedstat")]
    return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


def config_of(case: Case, rounds: int, workers: int) -> Any:
    """Return the experiment of a case."""
    dataset = register_random_images(case.channels, case.size, case.clients * case.samples)
    return resolve.experiment(
        {
            "dataset": dataset,
            "model": case.model,
            "client": {
                "num_epochs": case.epochs,
                "batch_size": case.batch,
                "lr": 0.001,
                "momentum": 0.9,
                "weight_decay": 5e-4,
                "transform": case.augmented,
            },
            "federation": {"size": case.clients, "round_size": case.clients, "rounds": rounds},
            "settings": {
                "seed": 1,
                "eval_every": rounds,
                "cuda": -1,
                "engine": case.engine,
                "workers": workers,
                "num_threads": 1,
            },
        }
    )


def measure(case: Case, repeats: int, processes: int) -> tuple[list[Pair], float]:
    """Alternate rounds and floors; the first, which warms up, and the last have no part in it.

    The last round alone is evaluated.
    """
    floor = Floor(case, processes)
    pairs: list[Pair] = []
    began = began_cpu = 0.0
    with ExitStack() as stack:
        stack.callback(floor.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))

        def ours() -> list[int]:
            children = {child.pid for child in multiprocessing.active_children()}
            return [os.getpid(), *(children - set(floor.pids))]

        def on_round(line: Mapping[str, Any]) -> None:
            nonlocal began, began_cpu
            wall, cpu = time.perf_counter() - began, cpu_seconds(ours()) - began_cpu
            before = cpu_seconds(floor.pids)
            seconds = floor()
            used = cpu_seconds(floor.pids) - before
            pairs.append(Pair(seconds, used, wall, cpu, line["seconds"]["aggregate"]))
            began, began_cpu = time.perf_counter(), cpu_seconds(ours())

        config = config_of(case, repeats + 2, processes)
        result = experiment.run(config, folder / "run", on_round=on_round)
    return pairs[1:-1], result.summary["seconds"]["evaluate"]


def row(case: Case, pairs: list[Pair], evaluate: float) -> list[str]:
    """Return a case's line of the table."""

    def middle(name: str) -> str:
        return f"{median(getattr(pair, name) for pair in pairs):.3f}"

    ratios = sorted(pair.round / pair.floor for pair in pairs)
    return [
        f"`{case.model}` {case.channels}x{case.size}x{case.size}",
        f"{case.clients} x {case.samples} x {case.epochs}, batch {case.batch}"
        + (", augmented" if case.augmented else ""),
        case.engine,
        middle("floor"),
        middle("round"),
        f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        f"{median(pair.round_cpu / pair.floor_cpu for pair in pairs):.2f}",
        middle("aggregate"),
        f"{evaluate:.3f}",
    ]


def main() -> int:
    """Measure all cases and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="pairs of round and floor")
    parser.add_argument("--workers", type=int, default=cores(), help="of the pool")
    parser.add_argument(
        "--only", choices=sorted({case.model for case in CASES}), help="one model, not published"
    )
    parser.add_argument("--tiny", action="store_true", help="one case of a second, not published")
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_pages()
    heads = ["model", "clients x samples x epochs", "engine", "floor, s", "round, s", "ratio"]
    heads += ["CPU ratio", "of it aggregation, s", "evaluation beside it, s"]
    rows: list[list[str]] = []
    for case in TINY if options.tiny else CASES:
        if options.only not in (None, case.model):
            continue
        processes = options.workers if case.engine == "pool" else 1
        rows.append(row(case, *measure(case, options.repeats, processes)))
        print(*rows[-1], sep="  ", flush=True)
    if options.tiny or options.only:
        return 0
    put_section(
        PERFORMANCE,
        "round",
        "## A round against its floor\n\n"
        "The floor is the same number of optimiser steps, with the same model, batches, optimiser, "
        "memory format and allocator, in a bare loop over batches that are ready in memory, in as "
        "many processes of one thread as the engine has. Undefended; random images. The ratio is "
        "the median (lowest to highest) over alternating pairs; the CPU ratio, of CPU seconds "
        "instead of seconds on the clock, is what other work on the machine disturbs least. "
        "*Augmented* has every batch cropped, flipped and rotated, which the floor has not.\n\n"
        + markdown(heads, rows)
        + f"\n\n`python benchmarks/round.py` at commit {commit()}: {options.repeats} pairs, "
        f"{options.workers} workers. {hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
