"""What the engines cost to start, and a round on each: pool, Ray and vectorized against inline.

    unshare -n sh -c 'ip link set lo up; python benchmarks/engines.py'

Ray listens on the machine's own address, hence the network namespace. The federation is small
(20 clients of mnist5k, the cnn): what differs is the engine. Rounds of all engines are run in turn,
the fastest of each counts, and the weights of the last one are held against the first engine's.
"""

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack

from entity import resolve
from entity.assembly import recruit
from entity.client import Broadcast
from entity.demo import shipped
from entity.engine import open_engine
from entity.experiment import settled
from entity.resolve import read
from entity.seeding import Seeds


def main(engines: Sequence[str], workers: int, repeats: int) -> None:
    """Print a table."""
    started: dict[str, float] = {}
    apart: dict[str, float] = {}
    rounds: dict[str, list[float]] = {name: [] for name in engines}
    with ExitStack() as stack:
        opened = {}
        for name in engines:
            words = {
                "server.defense.type": "undefended",
                "engine": name,
                "workers": str(workers),
                "federation.size": "20",
                "round_size": "20",
                "number_of_malicious_clients": "0",
                "client.attack": "null",
                "num_threads": "1",
                "cuda": "-1",
            }
            config = settled(resolve.experiment(read(shipped("mnist5k/drop")), [*words.items()]))
            _, roster = recruit(config, Seeds(1))
            state = roster.spec.flatten(roster.new_model())
            began = time.perf_counter()
            engine = stack.enter_context(open_engine(roster))
            engine.train(Broadcast(1, state), tuple(range(20)))
            started[name] = time.perf_counter() - began
            opened[name] = engine
        reference = None
        for number in range(2, 2 + repeats):
            for name, engine in opened.items():
                began = time.perf_counter()
                updates = engine.train(Broadcast(number, state), tuple(range(20)))
                rounds[name].append(time.perf_counter() - began)
                reference = updates.weights.clone() if name == engines[0] else reference
                assert reference is not None
                apart[name] = float((updates.weights - reference).abs().max())
    base = min(rounds[engines[0]])
    print("| engine | start and first round, s | a round, s | ratio | weights differ by |")
    print("|---|---|---|---|---|")
    for name in engines:
        best = min(rounds[name])
        print(
            f"| {name} | {started[name]:.1f} | {best:.3f} | {best / base:.2f} | {apart[name]:.1g} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engines", nargs="+", default=["inline", "pool", "ray", "vectorized"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    main(options.engines, options.workers, options.repeats)
