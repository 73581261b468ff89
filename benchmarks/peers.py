"""The same federation in Flower's simulation and in blazefl, in turn with ours.

    python benchmarks/peers.py --blazefl PATH/bin/python

Data (mnist5k, for `resnet8` as 3x32x32), first weights, clients, epochs, batch size, learning rate
and number of workers are the same; each framework's local training is what its own users write, so
theirs has a DataLoader. A peer that is not installed is left out, with a sentence. The table goes
into docs/PERFORMANCE.md.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, median, stdev
from typing import Any

import torch
from handout import Handout
from pages import PERFORMANCE, ROOT, commit, hardware, markdown, put_section
from torch.nn import functional as F

from entity import experiment, resolve
from entity.allocator import keep_pages
from entity.assembly import recruit
from entity.dataset import DATASETS, MNIST5K, Images, normalise
from entity.engine import cores
from entity.seeding import Seeds

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


def config_of(model: str, options: argparse.Namespace) -> Any:
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
                "seed": 1,
                "cuda": -1,
                "engine": "pool",
                "workers": options.workers,
                "num_threads": 1,
            },
        }
    )


def hand_out(model: str, options: argparse.Namespace, path: Path) -> None:
    """Write the same federation for the others."""
    config = config_of(model, options)
    split, roster = recruit(config, Seeds(config.settings.seed))
    parts = [split.train.subset(roster.samples(client)) for client in range(CLIENTS)]
    client = config.client
    Handout(
        model,
        *roster.images.shape[:2],
        options.rounds,
        *(client.num_epochs, client.batch_size, client.lr, options.workers),
        [(normalise(part.x), part.y) for part in parts],
        (normalise(split.test.x), split.test.y),
        roster.new_model().state_dict(),
    ).save(path)


def ours(model: str, options: argparse.Namespace) -> Figures:
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
        experiment.run(config_of(model, options), Path(folder) / "run", on_round=on_round)
    return found


def answer(words: Sequence[str], **environment: str) -> Figures:
    """Run a peer's script and return the figures it prints in its last line."""
    here = Path(__file__).parent
    path = os.pathsep.join([str(ROOT), str(here)])
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def flower(path: Path) -> Figures:
    """Run it in Flower's simulation, in a network namespace without any other machine."""
    script = Path(__file__).with_name("peer_flower.py")
    inside = 'ip link set lo up && exec "$@"'
    with tempfile.TemporaryDirectory() as folder:
        token = Path(folder) / "token"
        token.write_text(os.urandom(32).hex())
        words = ["unshare", "--map-root-user", "--net", "sh", "-c", inside, "sh"]
        return answer(
            [*words, sys.executable, str(script), str(path)],
            RAY_AUTH_MODE="token",
            RAY_AUTH_TOKEN_PATH=str(token),
            RAY_USAGE_STATS_ENABLED="0",
            FLWR_TELEMETRY_ENABLED="0",
            FLWR_DISABLE_UPDATE_CHECK="1",
            FLWR_HOME=folder,
        )


def peers(blazefl: Path | None) -> dict[str, Callable[[Path], Figures]]:
    """Return what is installed of them; say of the others how to install them."""
    found: dict[str, Callable[[Path], Figures]] = {}
    if find_spec("flwr") is None or find_spec("ray") is None:
        say("Flower's simulation is left out: pip install 'flwr[simulation]>=1.41,<1.43'.")
    elif shutil.which("unshare") is None or shutil.which("ip") is None:
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
    """Return a line for each framework: round, its ratio to ours in the same turn, accuracy."""
    # The first round of a run imports, starts and compiles what the later ones have.
    rounds = {name: [median(run["seconds"][1:]) for run in turns] for name, turns in runs.items()}
    rows: list[list[str]] = []
    for name, turns in runs.items():
        ratios = sorted(
            theirs / mine for theirs, mine in zip(rounds[name], rounds[OURS], strict=True)
        )
        final = [100 * run["mta"][-1] for run in turns]
        deviation = f" ± {stdev(final):.1f}" if len(final) > 1 else ""
        rows.append(
            [
                name,
                f"{median(run['seconds'][0] for run in turns):.1f}",
                f"{median(rounds[name]):.2f}",
                "1"
                if name == OURS
                else f"**{median(ratios):.2f}** ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                f"{fmean(final):.1f}{deviation}",
            ]
        )
    return rows


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
    text: list[str] = []
    for model in options.model or MODELS:
        runs: dict[str, list[Figures]] = {name: [] for name in (OURS, *others)}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "handout.pt"
            hand_out(model, options, path)
            for _ in range(options.turns):
                runs[OURS].append(ours(model, options))
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
        "Ratios are of the median later round, within a turn: median (lowest to highest) over the "
        "turns. MTA is that of the last round; the frameworks shuffle differently.\n\n"
        + "\n\n".join(text)
        + f"\n\n`python benchmarks/peers.py` at commit {commit()}: {options.turns} turns. "
        f"{hardware()}.",
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
