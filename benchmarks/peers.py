"""The same federation in Flower's simulation and in blazefl, in turn with ours.

    python benchmarks/peers.py --blazefl PATH/bin/python

Data (mnist5k, for `resnet8` as 3x32x32), first weights, clients, epochs, batch size, learning rate
and number of workers are the same; each framework's local training is what its own users write, so
theirs has a DataLoader. A peer that is not installed is left out, with a sentence. The table goes
into docs/PERFORMANCE.md.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from pages import PERFORMANCE, commit, hardware, markdown, put_section
from shared_federation import SharedFederation
from subprocesses import answer, answer_alone, can_be_alone
from torch.nn import functional as F

from entity import experiment
from entity.dataset import DATASETS, MNIST5K, Images, normalise
from entity.engine import cores
from entity.engine.allocator import keep_pages
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import recruit

CLIENTS = 20
OURS = "this project"
FLOWER = "Flower's simulation"
MODELS = {"cnn": ("mnist5k", 2, 32, 0.05), "resnet8": ("mnist5k-rgb", 1, 32, 0.05)}
"""Data set, local epochs, batch size and learning rate for each model."""

Figures = dict[str, list[float]]
"""`seconds` and `mta` of every round of one run."""


def coloured(images: Images) -> Images:
    """Return grey 28x28 images as RGB of 32x32."""
    return Images(F.pad(images.x, (2, 2, 2, 2)).repeat(1, 3, 1, 1), images.y)


DATASETS["mnist5k-rgb"] = replace(
    MNIST5K,
    name="mnist5k-rgb",
    channels=3,
    size=32,
    read=lambda root, seeds: tuple(map(coloured, MNIST5K.read(root, seeds))),  # type: ignore[arg-type,return-value]
)


def config_of(model: str, options: argparse.Namespace, seed: int) -> Any:
    """Return the federation as an experiment of ours."""
    dataset, epochs, batch, lr = MODELS[model]
    return resolve.experiment(
        {
            "dataset": dataset,
            "model": model,
            "client": {
                "num_epochs": epochs,
                "batch_size": batch,
                "lr": lr,
                "momentum": 0.0,
                "weight_decay": 0.0,
                "transform": False,
                "ADR": options.share,
            },
            "server": {"held_out": 0},
            "federation": {"size": CLIENTS, "round_size": CLIENTS, "rounds": options.rounds},
            "settings": {
                "seed": seed,
                "cuda": -1,
                "engine": "pool",
                "workers": options.workers,
                "num_threads": 1,
            },
        }
    )


def hand_out(model: str, options: argparse.Namespace, seed: int, path: Path) -> None:
    """Write the same federation for the others."""
    config = config_of(model, options, seed)
    split, roster = recruit(config, Seeds(seed))
    parts = [split.train.subset(roster.samples(client)) for client in range(CLIENTS)]
    client = config.client
    SharedFederation(
        model,
        *roster.images.shape[:2],
        options.rounds,
        *(client.num_epochs, client.batch_size, client.lr, options.workers),
        [(normalise(part.x), part.y) for part in parts],
        (normalise(split.test.x), split.test.y),
        roster.new_model().state_dict(),
    ).save(path)


def ours(model: str, options: argparse.Namespace, seed: int) -> Figures:
    """Run it here."""
    found: Figures = {"seconds": [], "mta": []}
    began = time.perf_counter()

    def on_round(line: Mapping[str, Any]) -> None:
        nonlocal began
        wall = time.perf_counter() - began
        found["seconds"].append(wall - line["seconds"]["evaluate"])
        found["mta"].append(line["mta"])
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as folder:
        experiment.run(config_of(model, options, seed), Path(folder) / "run", on_round=on_round)
    return found


def flower(path: Path) -> Figures:
    """Run it in Flower's simulation."""
    script = Path(__file__).with_name("peer_flower.py")
    with tempfile.TemporaryDirectory() as folder:
        return answer_alone(
            [sys.executable, str(script), str(path)],
            FLWR_TELEMETRY_ENABLED="0",
            FLWR_DISABLE_UPDATE_CHECK="1",
            FLWR_HOME=folder,
        )


def peers(blazefl: Path | None) -> dict[str, Callable[[Path], Figures]]:
    """Return what is installed of them; say of the others how to install them."""
    found: dict[str, Callable[[Path], Figures]] = {}
    if find_spec("flwr") is None or find_spec("ray") is None:
        say("Flower's simulation is left out: pip install 'flwr[simulation]>=1.41,<1.43'.")
    elif not can_be_alone():
        say("Flower's simulation is left out: it needs unshare and ip (util-linux, iproute2).")
    else:
        found[FLOWER] = flower
    if blazefl is None or not has_blazefl(blazefl):
        say(
            "blazefl is left out: make a virtual environment with Python 3.13 or newer, "
            "pip install 'blazefl[contrib,reproducibility]' there, and name it by "
            "--blazefl ENVIRONMENT/bin/python."
        )
    else:
        script = str(Path(__file__).with_name("peer_blazefl.py"))
        for mode in ("processes", "threads"):
            words = [str(blazefl), script]
            found[f"blazefl, {mode}"] = lambda path, words=words, mode=mode: answer(
                [*words, str(path), mode]
            )
    return found


def say(sentence: str) -> None:
    """Tell the user at once."""
    print(sentence, flush=True)


def has_blazefl(python: Path) -> bool:
    """Whether there is such a Python, and has blazefl and what its FedAvg needs."""
    try:
        done = subprocess.run([python, "-c", "import blazefl.contrib"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


def lines(runs: Mapping[str, list[Figures]]) -> list[list[str]]:
    """Return a line for each framework: its rounds and MTA, beside ours of the same turn."""
    # The first round of a run imports, starts and compiles what the later ones have.
    rounds = {name: [median(run["seconds"][1:]) for run in turns] for name, turns in runs.items()}
    rows: list[list[str]] = []
    for name, turns in runs.items():
        ratios = sorted(
            theirs / mine for theirs, mine in zip(rounds[name], rounds[OURS], strict=True)
        )
        final = [100 * run["mta"][-1] for run in turns]
        beyond = [one - 100 * run["mta"][-1] for one, run in zip(final, runs[OURS], strict=True)]
        ratio = f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})"
        beside = ("1", "") if name == OURS else (ratio, spread(beyond, "+"))
        rows.append(
            [
                name,
                f"{median(run['seconds'][0] for run in turns):.1f}",
                f"{median(rounds[name]):.2f}",
                beside[0],
                spread(final),
                beside[1],
            ]
        )
    return rows


def spread(values: list[float], sign: str = "") -> str:
    """Write mean and standard deviation."""
    deviation = f" ± {stdev(values):.1f}" if len(values) > 1 else ""
    return f"{fmean(values):{sign}.1f}{deviation}"


def main() -> int:
    """Run all in turn and publish the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, action="append", help="may be given twice")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8, help="of each run, the first not counted")
    parser.add_argument("--share", type=float, default=1.0, help="of the data that is used")
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--blazefl", type=Path, help="Python of the environment that has blazefl")
    parser.add_argument("--only-ours", action="store_true", help="no peer, nothing published")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error(
            f"--rounds {options.rounds}: allowed is 2 or more, as the first is not counted"
        )
    torch.set_num_threads(1)
    keep_pages()
    others = {} if options.only_ours else peers(options.blazefl)
    heads = ["framework", "first round, s", "later rounds, s", "ratio to ours", "MTA %"]
    heads += ["MTA beyond ours"]
    text: list[str] = []
    for model in options.model or MODELS:
        runs: dict[str, list[Figures]] = {name: [] for name in (OURS, *others)}
        with tempfile.TemporaryDirectory() as folder:
            for seed in range(1, options.turns + 1):
                path = Path(folder) / f"{seed}.pt"
                hand_out(model, options, seed, path)
                runs[OURS].append(ours(model, options, seed))
                for name, run in others.items():
                    runs[name].append(run(path))
        rows = lines(runs)
        for one in rows:
            print(model, *one, sep="  ", flush=True)
        dataset, epochs, batch, lr = MODELS[model]
        text.append(
            f"### `{model}` on {dataset}: {CLIENTS} clients of "
            f"{4000 * options.share / CLIENTS:.0f} samples, {epochs} local epochs, "
            f"batch {batch}, SGD {lr:g}, {options.rounds} rounds\n\n{markdown(heads, rows)}"
        )
    if not others:
        return 0
    put_section(
        PERFORMANCE,
        "peers",
        "## Beside other frameworks\n\n"
        "The same data, split, first weights, clients, epochs, batch size and learning rate, "
        f"FedAvg of all clients in every round, {options.workers} workers of one thread each, "
        "evaluation not counted. Flower's client trains as its PyTorch quick start does, blazefl's "
        "as its own FedAvg does, both with a DataLoader over tensors; ours as it always does. "
        "Every turn has its own split and first weights. Ratios are of the median later round, "
        "within a turn: median (lowest to highest) over the turns. MTA is that of the last round, "
        "mean ± standard deviation over the turns; the frameworks shuffle differently.\n\n"
        + "\n\n".join(text)
        + f"\n\n`python benchmarks/peers.py` at commit {commit()}: {options.turns} turns. "
        f"{hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
