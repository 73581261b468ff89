"""What every defense costs: seconds and memory to aggregate 25 clients of 1M and 11M parameters.

    python benchmarks/aggregate.py [--quick]       (Linux: it reads /proc)

Every figure comes from a process of its own: the median of three calls after a warm-up, the memory
it takes beyond the matrix of updates, and the ratio to reading that matrix once. `--quick` has 1M
parameters alone, and no page. The model is a perceptron of three layers, so that defenses that ask
it for answers pay little for them; DeepSight asks with 3 x 1,000 images instead of 3 x 20,000. DROP
is shown without its distillation, whose cost is set by its budget. The table goes into
docs/PERFORMANCE.md.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from torch import nn

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.layout import ParamSpec
from entity.models import Classifier
from entity.seeding import Seeds, global_stream
from entity.server import Averaging, CleanData, Resources, admit
from entity.server.votes import Vote
from entity.training import Recipe
from entity.updates import Updates

CLIENTS = 25
SIZES = {"1M": (1024, 256), "11M": (4096, 1920)}
SETTINGS: dict[str, dict[str, Any]] = {"deepsight": {"num_samples": 1000}, "drop": {"K": -1}}


def perceptron(widths: tuple[int, int], generator: torch.Generator) -> nn.Module:
    """Build 784 -> widths -> 10."""
    first, second = widths
    with global_stream(generator):
        layers = [nn.Flatten(), nn.Linear(784, first), nn.ReLU(), nn.Linear(first, second)]
        return Classifier(nn.Sequential(*layers, nn.ReLU()), nn.Linear(second, 10))


class Crowd:
    """Voters who all have the same images."""

    def __init__(self, data: CleanData) -> None:
        self.data = data

    def ballots(self, updates: Updates, voters: Sequence[int], vote: Vote) -> torch.Tensor:
        """Let everybody vote; see `entity.server.votes.Electorate`."""
        return torch.stack([vote(*self.data, row) for row in voters])


def measure(defense: str, size: str) -> dict[str, float]:
    """Time one defense in this process."""
    rng = torch.Generator().manual_seed(1)
    model = perceptron(SIZES[size], rng)
    spec = ParamSpec.of(model)
    start = spec.flatten(model)
    weights = torch.empty(CLIENTS, spec.num_parameters).normal_(0, 0.01, generator=rng)
    weights += start.weights
    clean = CleanData(torch.rand(500, 1, 28, 28, generator=rng) * 2 - 1, torch.arange(500) % 10)
    resources = Resources(
        spec,
        lambda generator: perceptron(SIZES[size], generator),
        Seeds(1),
        (1, 28),
        10,
        Averaging(),
        Recipe(0.1, 0.9, 5e-4, 32, 2),
        clean,
        electorate=Crowd(clean),
    )
    server = DEFENSES[defense](
        load(DEFENSES[defense].hyperparameters, SETTINGS.get(defense, {})), resources
    )

    def call(number: int) -> float:
        updates = Updates(
            number,
            tuple(range(CLIENTS)),
            weights,
            torch.empty(CLIENTS, 0),
            torch.full((CLIENTS,), 100),
            *start,
            spec=spec,
        )
        began = time.perf_counter()
        admit(server, updates)
        return time.perf_counter() - began

    weights.sum()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory_mb("VmRSS")
    call(1)
    extra = memory_mb("VmHWM") - before
    seconds = median(call(number) for number in (2, 3, 4))
    reads: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        weights.sum()
        reads.append(time.perf_counter() - began)
    return {"seconds": seconds, "extra_mb": extra, "read": median(reads)}


def memory_mb(name: str) -> float:
    """Return a figure of /proc/self/status, such as the resident size now or at its peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> int:
    """Measure all defenses, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1M parameters only, no page")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*options.one)))
        return 0
    sizes = list(SIZES)[:1] if options.quick else list(SIZES)
    rows: list[list[str]] = []
    for defense in DEFENSES:
        row = [defense]
        for size in sizes:
            done = subprocess.run(
                [sys.executable, __file__, "--one", defense, size],
                capture_output=True,
                text=True,
                check=True,
            )
            found = json.loads(done.stdout)
            ratio = found["seconds"] / found["read"]
            row += [f"{found['seconds']:.2f}", f"{ratio:.0f}", f"{found['extra_mb']:.0f}"]
        print(*row, flush=True)
        rows.append(row)
    heads = ["defense"]
    for size in sizes:
        heads += [f"{size}: seconds", "x one read", "extra MB"]
    table = markdown(heads, rows)
    if options.quick:
        print(table)
        return 0
    put_section(
        PERFORMANCE,
        "aggregate",
        "## Aggregation\n\n"
        f"Seconds to aggregate {CLIENTS} clients of {' and '.join(sizes)} parameters, the ratio to "
        "reading their matrix once, and memory beyond it. The model is a perceptron; DeepSight "
        "asks with 3 x 1,000 images; DROP is shown without its distillation, FLIP's cost is its "
        f"clients'.\n\n{table}\n\n"
        f"`python benchmarks/aggregate.py` at commit {commit()}, {torch.get_num_threads()} "
        f"threads: medians of three calls after a warm-up. {hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
