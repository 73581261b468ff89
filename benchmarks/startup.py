"""How fast a run starts with a warm cache, and what the size of the federation costs in memory.

    python benchmarks/startup.py --data_root data

Needs MNIST in the data folder. Every figure is of a process of its own, the median over repeats,
and goes into docs/RESULTS.md.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from pages import RESULTS, commit, markdown, put_section
from studies import CONFIGS

from entity import experiment
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import recruit

REPEATS = 5
FEDERATIONS = (50, 10_000)
ROUND = 20
"""Clients in a round, whatever the federation."""


def measure(size: int, data_root: Path, began: float) -> dict[str, float]:
    """Start a federation of `size` clients in this process, and run two rounds of it."""
    changes = {
        "size": size,
        "number_of_malicious_clients": 0,
        "round_size": ROUND,
        "rounds": 2,
        "seed": 1,
        "engine": "inline",
        "num_threads": 1,
        "datasets_path": data_root,
    }
    config = resolve.experiment(
        resolve.read(CONFIGS / "mnist" / "droplet.json"),
        [("client.attack", "null"), *((name, str(value)) for name, value in changes.items())],
    )
    resolved = time.time()
    recruit(config, Seeds(1))
    recruited = time.time()
    summary = experiment.run(config).summary
    return {
        "command": recruited - began,
        "start": recruited - resolved,
        "memory": summary["peak_memory_mb"],
    }


def in_a_process(size: int, data_root: Path) -> dict[str, float]:
    """Measure in a new process, so that nothing is warm but the files."""
    words = [sys.executable, __file__, "--data_root", str(data_root)]
    words += ["--one", str(size), str(time.time())]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Measure all federations in turn and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_root", type=Path, default=Path("data"))
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        size, began = options.one
        print(json.dumps(measure(int(size), options.data_root, float(began))))
        return 0
    in_a_process(FEDERATIONS[0], options.data_root)  # decodes the data once
    found: dict[int, list[dict[str, Any]]] = {size: [] for size in FEDERATIONS}
    for _ in range(REPEATS):
        for size in FEDERATIONS:
            found[size].append(in_a_process(size, options.data_root))
    rows = [
        [
            f"{size:,}",
            *(f"{median(one[name] for one in runs):.2f}" for name in ("start", "command")),
            f"{median(one['memory'] for one in runs):.0f}",
        ]
        for size, runs in found.items()
    ]
    heads = ["clients", "data, partition, clients, s", "from the command on, s", "peak memory, MB"]
    table = markdown(heads, rows)
    put_section(
        RESULTS,
        "startup",
        "## Start and memory on MNIST-50k\n\n"
        f"DROPlet, the `cnn`, {ROUND} clients a round, two rounds in one process, warm cache. From "
        "the command on it is mostly the import of PyTorch; 10,000 clients hold 5 images each.\n\n"
        f"{table}\n\nMedians of {REPEATS} processes. `python benchmarks/startup.py` at commit "
        f"{commit()}.",
    )
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
