"""What the size of the federation and the number of rounds cost in memory.

    python benchmarks/scale.py --data_root data        (Linux: it reads /proc)

10,000 clients, 100 of them a round, beside a federation of 100 in which everybody takes part and
holds as many images: memory after every round of the process that leads and of its workers, each
federation in processes of its own. The table goes into docs/PERFORMANCE.md. Without MNIST in the
data folder it takes as many random images.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from random_images import register_random_images
from subprocesses import answer
from torch import multiprocessing

from entity import experiment
from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.engine import cores
from entity.engine.allocator import keep_pages
from entity.seeding import Seeds
from entity.setup import resolve

SIZES = (100, 10_000)
ROUND = 100
"""Clients in a round, whatever the federation."""


def data_set(root: Path) -> str:
    """Return `mnist`, or the name of random images of the same number and shape."""
    try:
        DATASETS["mnist"].read(root, Seeds(1))
    except ConfigError:
        print("no MNIST in", root, "(--data_root): random images instead", file=sys.stderr)
        return register_random_images(1, 28, 60_000, 10_000)
    return "mnist"


def config_of(size: int, options: argparse.Namespace) -> Any:
    """Return a federation whose clients hold as many images whatever its size."""
    return resolve.experiment(
        {
            "dataset": data_set(options.data_root),
            "model": "cnn",
            "client": {
                "num_epochs": 2,
                "batch_size": 64,
                "lr": 0.05,
                "transform": False,
                "ADR": size / max(SIZES),
            },
            "federation": {"size": size, "round_size": ROUND, "rounds": options.rounds},
            "settings": {
                "seed": 1,
                "cuda": -1,
                "engine": options.engine,
                "workers": options.workers,
                "num_threads": 1,
                "eval_every": options.rounds,
            },
        },
        [("settings.datasets_path", str(options.data_root))],
    )


def memory_mb(pids: Iterable[int]) -> float:
    """Return the memory that processes hold, without the pages of files that they map.

    Those pages are the kernel's, which gives them back when it needs them.
    """
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(("RssAnon", "RssShmem")):
                total += int(line.split()[1])
    return total / 1024


def measure(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run one federation in this process and its workers."""
    torch.set_num_threads(1)
    keep_pages()
    config = config_of(size, options)
    leader: list[float] = []
    workers: list[float] = []
    walls: list[float] = []
    began = time.perf_counter()

    def on_round(line: Mapping[str, Any]) -> None:
        nonlocal began
        walls.append(time.perf_counter() - began)
        leader.append(memory_mb([multiprocessing.current_process().pid or 0]))
        workers.append(memory_mb(child.pid or 0 for child in multiprocessing.active_children()))
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        experiment.run(config, Path(folder) / "run", on_round=on_round)
    usual = median(walls[1:-1])
    return {
        "dataset": config.dataset,
        "start": walls[0] - usual,
        "round": usual,
        "leader": leader,
        "workers": workers,
    }


def in_a_process(size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure in a new process, so that nothing is there of the federation before."""
    words = [sys.executable, __file__, "--one", str(size), "--rounds", str(options.rounds)]
    words += ["--data_root", str(options.data_root), "--engine", options.engine]
    words += ["--workers", str(options.workers)]
    return answer(words)


def early_and_late(series: list[float]) -> tuple[float, float]:
    """Return the medians over the second tenth of the rounds, when all is warm, and the last."""
    tenth = max(1, len(series) // 10)
    return median(series[tenth : 2 * tenth] or series), median(series[-tenth:])


def figures(size: int, runs: list[dict[str, Any]]) -> list[str]:
    """Return a federation's line of the table."""
    cells = [
        f"{size:,}",
        *(f"{median(run[name] for run in runs):.2f}" for name in ("start", "round")),
    ]
    for name in ("leader", "workers"):
        both = [early_and_late(run[name]) for run in runs]
        early, late = (median(pair[side] for pair in both) for side in (0, 1))
        cells += [f"{early:.0f}", f"{late:.0f}"]
    return cells


def total(run: dict[str, Any]) -> float:
    """Return the memory of all processes of a run at its end."""
    return sum(early_and_late(run[name])[1] for name in ("leader", "workers"))


def main() -> int:
    """Measure both federations in turn and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", type=Path, default=Path(os.environ.get("DROP_DATA", "data")))
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--engine", choices=["pool", "inline"], default="pool")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--no-page", action="store_true", help="only print the table")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rounds < 3:
        parser.error(f"--rounds {options.rounds}: allowed is 3 or more, to see what grows")
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return 0
    data_set(options.data_root)  # decodes the data once
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in SIZES}
    for _ in range(options.turns):
        for size in SIZES:
            found[size].append(in_a_process(size, options))
    small, large = (found[size] for size in SIZES)
    ratio = median(total(b) / total(a) for a, b in zip(small, large, strict=True))
    heads = ["clients", "start, s", "a round, s", "leader early, MB", "leader late, MB"]
    heads += ["workers early, MB", "workers late, MB"]
    table = markdown(heads, [figures(size, runs) for size, runs in found.items()])
    verdict = f"Memory of {SIZES[1]:,} clients to that of {SIZES[0]}: **{ratio:.2f}**."
    print(table, verdict, sep="\n")
    if options.no_page:
        return 0
    put_section(
        PERFORMANCE,
        "scale",
        "## Large federations\n\n"
        f"{ROUND} clients a round, {options.rounds} rounds of the `cnn` on {large[0]['dataset']}; "
        "clients of both federations hold 5 or 6 images each. *Start* is what the first round "
        "takes longer than later ones: data, partition, worker processes. *Early* is the second "
        "tenth of the rounds, *late* the last; memory is what the processes hold beside mapped "
        f"files, all workers together.\n\n{table}\n\n{verdict}\n\n"
        f"`python benchmarks/scale.py --rounds {options.rounds}` at commit {commit()}, engine "
        f"{options.engine}, {options.workers} workers. {hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
