"""What a round of many large models holds in memory where the defense takes them as they come.

    python benchmarks/streaming.py

One round of `resnet18` (11.2M parameters) with 100 and with 1,000 clients of a few random images,
by the pool with `streaming`, each in processes of its own: peak memory of the process that leads
and of its largest worker, beside what the matrix of all models would take. The defenses are those
of `drop list defenses` that stream and need nothing else. The table goes into docs/PERFORMANCE.md.
"""

import argparse
import json
import sys
from typing import Any

import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from random_images import register_random_images
from subprocesses import answer

from entity import experiment
from entity.engine import cores
from entity.engine.allocator import keep_pages
from entity.layout import ParamSpec
from entity.models import build
from entity.setup import resolve

SIZES = (100, 1000)
SAMPLES = 4
"""Of each client: one step of the optimiser."""
DEFENSES: dict[str, dict[str, Any]] = {
    "undefended": {"type": "undefended"},
    "norm_clipping": {"type": "norm_clipping", "defense_args": {"c": 1.0}},
}


def measure(defense: str, model: str, clients: int, workers: int) -> dict[str, float]:
    """Run one round in this process and its workers."""
    torch.set_num_threads(1)
    keep_pages()
    config = resolve.experiment(
        {
            "dataset": register_random_images(3, 32, clients * SAMPLES, test=100),
            "model": model,
            "client": {
                "num_epochs": 1,
                "batch_size": SAMPLES,
                "lr": 0.01,
                "transform": False,
            },
            "server": {"defense": DEFENSES[defense]},
            "federation": {"size": clients, "round_size": clients, "rounds": 1},
            "settings": {
                "seed": 1,
                "cuda": -1,
                "engine": "pool",
                "workers": workers,
                "num_threads": 1,
                "streaming": True,
            },
        }
    )
    summary = experiment.run(config).summary
    return {
        "seconds": summary["seconds"]["total"],
        "leader": summary["peak_memory_mb"],
        "worker": summary["worker_peak_memory_mb"],
    }


def in_a_process(defense: str, clients: int, options: argparse.Namespace) -> dict[str, float]:
    """Measure in a new process, whose peak is of this round alone."""
    words = [sys.executable, __file__, "--one", defense, str(clients)]
    return answer([*words, "--model", options.model, "--workers", str(options.workers)])


def main() -> int:
    """Measure all defenses and sizes in turn and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--clients", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--no-page", action="store_true", help="only print the table")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        defense, clients = options.one
        print(json.dumps(measure(defense, options.model, int(clients), options.workers)))
        return 0
    size = ParamSpec.of(build(options.model, 3, 32, 10, torch.Generator())).num_parameters
    rows: list[list[str]] = []
    for defense in DEFENSES:
        for clients in options.clients:
            found = in_a_process(defense, clients, options)
            figures = [found["leader"], found["worker"], clients * size * 4 / 2**20]
            rows.append(
                [
                    f"`{defense}`",
                    f"{clients:,}",
                    f"{found['seconds']:.0f}",
                    *(f"{figure:,.0f}" for figure in figures),
                ]
            )
            print(*rows[-1], sep="  ", flush=True)
    if options.no_page:
        return 0
    heads = ["defense", "clients", "the round, s", "leader at its peak, MB"]
    heads += ["largest worker at its peak, MB", "the matrix it does without, MB"]
    put_section(
        PERFORMANCE,
        "streaming",
        "## Rounds of many large models\n\n"
        f"One round of `{options.model}` ({size / 1e6:.1f}M parameters) with `--streaming true`, "
        f"{SAMPLES} random images a client, {options.workers} workers.\n\n"
        f"{markdown(heads, rows)}\n\n"
        f"`python benchmarks/streaming.py` at commit {commit()}. {hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
