"""Whether two versions of this package compute the same, bit for bit.

    python benchmarks/same_bits.py record OUT --checkout OLD
    python benchmarks/same_bits.py record OUT2
    python benchmarks/same_bits.py compare OUT OUT2

`record` runs some eighty small experiments by the `main.py` of a checkout: every defense, attack
and data poison but those of `NOT_HERE`, every engine, both kinds of distillation, streaming,
resumed runs. What a checkout does not have yet ends with its refusal. `compare` holds two
such folders against each other: every line of `rounds.jsonl` but its seconds, every weight and
buffer of the final model, the artifacts, the identity of each run. It ends with 1 where anything
differs. What is on disk already is not run again. Both records take the same machine, since
PyTorch's kernels depend on the processor.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from entity.attacks import ATTACKS
from entity.defenses import DEFENSES
from entity.poisons import POISONS

ROOT = Path(__file__).resolve().parents[1]

SMALL = {
    "ADR": 0.1,
    "rounds": 3,
    "federation.size": 8,
    "round_size": 6,
    "number_of_malicious_clients": 2,
    "num_epochs": 1,
    "num_threads": 1,
    "checkpoint_every": 1,
    "held_out": 300,
}
DISTILLS = {
    "K": 2,
    "distill_iters": 4,
    "defense_args.batch_size": 16,
    "num_seed": 40,
    "iter_exp": 2,
    "iter_clone": 2,
}
MAZE_ALONE = ("num_seed", "iter_exp")
"""Those of them that do nothing with DFME."""
ENGINES = ["inline", "pool", "ray", "vectorized"]
NOT_HERE = {
    "drop": "its runs are those called drop-",
    "edge_case": "its images are the user's own",
}
"""Methods that have no run by their name, and why."""
OWN: dict[str, dict[str, object]] = {"bait": {"baits": 1}}
"""What else a method is given: of two attackers one is no bait."""


def methods(registry: Mapping[str, object]) -> list[str]:
    """Return the methods of a registry that have a run by their name."""
    return [name for name in registry if name not in NOT_HERE]


def begin(defense: str, fields: Mapping[str, object] | None = None) -> list[str]:
    """Return the command of a small run with one of the shipped configurations of `mnist5k`."""
    words = ["--config", f"entity/configs/mnist5k/{defense}.json"]
    for name, value in (SMALL | dict(fields or {})).items():
        words += [f"--{name}", str(value)]
    return words


def runs() -> dict[str, list[list[str]]]:
    """Return, by name, the commands of `main.py` that make each run, one after the other."""
    inline = {"engine": "inline"}
    single: dict[str, list[str]] = {}
    for name in methods(DEFENSES):
        single[f"defense-{name}"] = begin(name, inline)
    for name in methods(ATTACKS):
        own = {"attack.type": name} | OWN.get(name, {})
        single[f"attack-{name}"] = begin("droplet", inline | own)
    for name in methods(POISONS):
        single[f"poison-{name}"] = begin("multikrum", inline | {"attack.poison": name})
    for name in ENGINES:
        single[f"engine-{name}"] = begin("undefended", {"engine": name})
    distillations: dict[str, dict[str, object]] = {
        "pool": {"engine": "pool"},
        "inline": inline,
        "fresh-student": {"clone_init_with_global": "false"},
        "adam": {"opt": "adam", "cycles": 1, "plateau": "null", "model_gen": "conv3_cgen"},
        "plateau": {"cycles": 2, "plateau": 0.01},
        "dfme": {"stealing_method": "dfme", "model_gen": "dfme_gen"},
        "augment": {"augment": "true", "transform": "true"},
    }
    for name, fields in distillations.items():
        idle = MAZE_ALONE if name == "dfme" else ()
        kept = {key: value for key, value in DISTILLS.items() if key not in idle}
        single[f"drop-{name}"] = begin("drop", kept | fields)
    skewed = {"IID": "false", "dirichlet_alpha": 0.5, "min_samples": 1}
    streaming = {"streaming": "true"}
    samples = {"weighting": "samples", "model": "resnet8", "server_lr": 0.7}
    single |= {
        "dirichlet": begin("droplet", skewed),
        "resnet8": begin("flame", {"model": "resnet8"}),
        "streaming-pool": begin("norm_clipping", streaming | {"engine": "pool", "c": 1.0}),
        "streaming-inline": begin("undefended", streaming | inline),
        "weighted": begin("undefended", samples),
    }
    found = {name: [words] for name, words in single.items()}
    for name, fields in (("droplet", {}), ("foolsgold", {}), ("drop", DISTILLS)):
        first = begin(name, dict(fields) | {"rounds": 2})
        found[f"resumed-{name}"] = [first, ["--resume", "OUT", "--rounds", "4"]]
    return found


def record(out: Path, checkout: Path, jobs: int, only: str) -> None:
    """Run the experiments of a checkout into `out`, a folder each."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}

    def make(name: str, commands: list[list[str]]) -> str:
        folder = out / name
        for number, words in enumerate(commands):
            target = [] if "OUT" in words else ["--out", str(folder), "--overwrite"]
            if number == 0 and (folder / "done").exists():
                return f"{name}: kept"
            words = [str(folder) if word == "OUT" else word for word in words]
            done = subprocess.run(
                [sys.executable, "main.py", *words, *target, "--quiet"],
                cwd=checkout,
                env=environment,
                capture_output=True,
                text=True,
            )
            if done.returncode:
                return f"{name}: exit {done.returncode}: {done.stderr.strip()[-300:]}"
        (folder / "done").touch()
        return f"{name}: done"

    found = {name: words for name, words in runs().items() if fnmatch(name, only)}
    with ThreadPoolExecutor(jobs) as pool:
        for line in pool.map(make, found, found.values()):
            print(line, flush=True)


def facts(folder: Path) -> dict[str, Any]:
    """Return what must be the same: rounds, identity, and the bytes of model and artifacts."""
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    summary = json.loads((folder / "summary.json").read_text())
    found: dict[str, Any] = {"identity": summary["config_hash"], "state": summary["state"]}
    for line in lines:
        del line["seconds"]
        for name in [name for name in line["diagnostics"] if "seconds" in name]:
            del line["diagnostics"][name]
        found[f"round {line['round']}"] = line
    for path in [*folder.glob("artifacts/*"), folder / "model.safetensors"]:
        found[path.name] = path.read_bytes()
    return found


def compare(one: Path, other: Path, only: str) -> int:
    """Print what differs between two recorded folders and return how many runs do."""
    found = {path.parent.name for path in [*one.glob("*/done"), *other.glob("*/done")]}
    names = sorted(name for name in found if fnmatch(name, only))
    different = 0
    for name in names:
        if not all((folder / name / "done").exists() for folder in (one, other)):
            print(f"{name}: only on one side")
            different += 1
            continue
        left, right = facts(one / name), facts(other / name)
        parts = [key for key in left | right if left.get(key) != right.get(key)]
        if parts:
            print(f"{name}: {', '.join(parts)}")
        different += bool(parts)
    print(f"{len(names)} runs, {len(names) - different} the same, {different} different")
    return different


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record", help="run the experiments of a checkout")
    one.add_argument("out", type=Path)
    one.add_argument("--checkout", type=Path, default=ROOT)
    one.add_argument("--jobs", type=int, default=2)
    one.add_argument("--only", default="*", help="pattern of names, such as drop-*")
    two = commands.add_parser("compare", help="hold two recorded folders against each other")
    two.add_argument("one", type=Path)
    two.add_argument("other", type=Path)
    two.add_argument("--only", default="*", help="pattern of names, such as drop-*")
    options = parser.parse_args()
    if options.command == "record":
        record(options.out.resolve(), options.checkout.resolve(), options.jobs, options.only)
        return 0
    return min(1, compare(options.one, options.other, options.only))


if __name__ == "__main__":
    sys.exit(main())
