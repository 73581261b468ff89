"""What the engines cost to start, and a round on each: pool, Ray and vectorized beside inline.

    python benchmarks/engines.py

The federation is small (20 clients of mnist5k, the cnn), so what differs is the engine. Rounds of
all engines are run in turn, and the weights of the last one are held against the first engine's.
All of it happens in a network namespace, since Ray listens on the machine's own address; without
one, Ray is left out. The table goes into docs/PERFORMANCE.md.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from statistics import median

from pages import PERFORMANCE, commit, hardware, markdown, put_section
from subprocesses import answer_alone, can_be_alone

from entity.client import Broadcast
from entity.config.shipped import shipped
from entity.engine import cores, open_engine
from entity.experiment import settled
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import recruit
from entity.setup.resolve import read

ENGINES = ("inline", "pool", "ray", "vectorized")
CLIENTS = tuple(range(20))


def measure(engines: Sequence[str], workers: int, repeats: int) -> list[list[str]]:
    """Return a line of the table for each engine."""
    started: dict[str, float] = {}
    differences: dict[str, float] = {}
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    with ExitStack() as stack:
        opened = {}
        for name in engines:
            words = {
                "server.defense.type": "undefended",
                "engine": name,
                "workers": str(workers),
                "federation.size": str(len(CLIENTS)),
                "round_size": str(len(CLIENTS)),
                "number_of_malicious_clients": "0",
                "client.attack": "null",
                "num_threads": "1",
                "cuda": "-1",
            }
            config, _ = resolve.without_idle(read(shipped("mnist5k/drop")), [*words.items()])
            config = settled(config)
            _, roster = recruit(config, Seeds(1))
            state = roster.spec.flatten(roster.new_model())
            began = time.perf_counter()
            engine = stack.enter_context(open_engine(roster))
            engine.train(Broadcast(1, state), CLIENTS)
            started[name] = time.perf_counter() - began
            opened[name] = engine
        reference = None
        for number in range(2, 2 + repeats):
            for name, engine in opened.items():
                began = time.perf_counter()
                updates = engine.train(Broadcast(number, state), CLIENTS)
                rounds[name].append(time.perf_counter() - began)
                reference = updates.weights.clone() if name == engines[0] else reference
                assert reference is not None
                differences[name] = float((updates.weights - reference).abs().max())
    lines: list[list[str]] = []
    for name in engines:
        both = zip(rounds[name], rounds[engines[0]], strict=True)
        ratios = sorted(mine / first for mine, first in both)
        lines.append(
            [
                f"`{name}`",
                f"{started[name]:.1f}",
                f"{median(rounds[name]):.3f}",
                f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                f"{differences[name]:.1g}",
            ]
        )
    return lines


def main() -> int:
    """Measure all engines and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--no-page", action="store_true", help="only print the table")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.engines, options.workers, options.repeats)))
        return 0
    if can_be_alone():
        words = [sys.executable, __file__, "--here", "--workers", str(options.workers)]
        words += ["--repeats", str(options.repeats), "--engines", *options.engines]
        lines = answer_alone(words)
    else:
        print("Ray is left out: its namespace needs unshare and ip (util-linux, iproute2).")
        engines = [name for name in options.engines if name != "ray"]
        lines = measure(engines, options.workers, options.repeats)
    heads = ["engine", "start and first round, s", "a round, s", "ratio to the first engine"]
    table = markdown([*heads, "weights differ by"], lines)
    print(table)
    if not options.no_page:
        put_section(
            PERFORMANCE,
            "engines",
            "## The engines\n\n"
            f"{len(CLIENTS)} clients of 175 images, the `cnn`, two local epochs: so small that "
            f"handing models over shows. Training alone, rounds in turn.\n\n{table}\n\n"
            f"`python benchmarks/engines.py` at commit {commit()}: {options.repeats} rounds, "
            f"{options.workers} workers. {hardware()}.",
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
