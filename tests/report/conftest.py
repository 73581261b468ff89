"""Run directories as `drop run` leaves them, made up: some by hand, and grids by `Record`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from scipy.cluster.hierarchy import linkage

from entity.record.directory import Record
from entity.record.summary import tail_statistics, total_seconds
from entity.setup import resolve

MakeRun = Callable[..., Path]

# Chance of refusing a poisoned and an honest update, by how far the run has come (0 to 1).
DEFENSES: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "undefended": (lambda t: 0.0, lambda t: 0.0),
    "droplet": (lambda t: 0.55 + 0.25 * t, lambda t: 0.12),
    "drop": (lambda t: min(0.99, 0.55 + 1.5 * t), lambda t: max(0.01, 0.1 - 0.3 * t)),
}
FINAL_ASR = {"undefended": 0.95, "droplet": 0.45, "drop": 0.012}


def write_run(
    path: Path,
    defense: str = "drop",
    *,
    rounds: int = 40,
    clients: int = 10,
    malicious: int = 4,
    round_size: int | None = None,
    seed: int = 0,
    stop: int | None = None,
    name: str | None = None,
    artifacts: bool = True,
    image: tuple[int, int, int] = (1, 28, 28),
) -> Path:
    """Write a run of `rounds`; with `stop`, one that crashed in the middle of the next line."""
    rng = np.random.default_rng([seed, *defense.encode()])
    catch, alarm = DEFENSES[defense]
    round_size = round_size or clients
    path.mkdir(parents=True)
    config = _config(defense, rounds, clients, malicious, round_size, seed, name)
    (path / "config.json").write_text(json.dumps(config))
    bad = {int(one) for one in rng.choice(clients, malicious, replace=False)}
    lines, last = [], stop or rounds
    for index in range(1, last + 1):
        t = index / rounds
        selected = [int(one) for one in rng.choice(clients, round_size, replace=False)]
        poisoned = [one for one in selected if one in bad]
        refused = [one for one in selected if rng.random() < (catch(t) if one in bad else alarm(t))]
        accepted = [one for one in selected if one not in refused]
        distilled = defense == "drop" and index % 5 == 0
        mta = 0.982 - 0.6 * np.exp(-index / 4) + rng.normal(0, 0.004)
        start = 0.5 * np.exp(-index / 6) if defense == "drop" else 0.0
        asr = FINAL_ASR[defense] * (1 - np.exp(-index / 9)) + start * rng.random()
        asr += rng.normal(0, 0.05 if defense == "droplet" else 0.008)
        seconds = {"train": 4.2, "aggregate": 6.5 if distilled else 0.08, "evaluate": 0.9}
        line: dict[str, Any] = {
            "round": index,
            "mta": float(np.clip(mta, 0, 1)),
            "asr": float(np.clip(asr, 0, 1)),
            "metrics": {},
            "n_selected": len(selected),
            "n_malicious": len(poisoned),
            "selected": selected,
            "malicious": poisoned,
            "accepted": accepted,
            "refused": refused,
            "reasons": {str(one): f"penalty {rng.random() + 0.5:.1f}" for one in refused},
            "weights": {str(one): 1 / max(1, len(accepted)) for one in accepted},
            "scores": {str(one): float(rng.gamma(2 + 3 * (one in bad))) for one in selected},
            "seconds": seconds,
            "diagnostics": {"distilled": 1.0} if distilled else {"clusters": 2.0},
        }
        lines.append(line)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    if stop is not None:
        text += json.dumps(lines[-1])[:60]
    else:
        (path / "summary.json").write_text(json.dumps(_summary(config, lines)))
    (path / "rounds.jsonl").write_text(text)
    if artifacts and defense != "undefended":
        _artifacts(path / "artifacts", lines[-1], bad, defense, rng, image)
    return path


def _config(
    defense: str,
    rounds: int,
    clients: int,
    malicious: int,
    round_size: int,
    seed: int,
    name: str | None,
) -> dict[str, Any]:
    arguments: dict[str, dict[str, Any]] = {
        "undefended": {},
        "droplet": {"clusters": 2, "linkage": "ward"},
        "drop": {"clusters": 2, "linkage": "ward", "query_budget": 150_000, "distill_every": 5},
    }
    return {
        "dataset": "mnist5k",
        "model": "cnn",
        "name": name or f"mnist5k-stealthy-{defense}",
        "client": {
            "lr": 0.05,
            "local_epochs": 2,
            "batch_size": 64,
            "optimizer": "sgd",
            "attack": {"type": "targeted", "DPR": 0.025, "victim_class": 1, "target_class": 7},
        },
        "server": {
            "defense": {
                "type": "fedavg" if defense == "undefended" else defense,
                "defense_args": arguments[defense],
            }
        },
        "federation": {
            "size": clients,
            "number_of_malicious_clients": malicious,
            "round_size": round_size,
            "rounds": rounds,
            "partition": "iid",
        },
        "settings": {"seed": seed, "cuda": False, "engine": "pool", "evaluate_every": 1},
    }


def _summary(config: dict[str, Any], lines: list[dict[str, Any]]) -> dict[str, Any]:
    def total(which: str) -> float:
        return sum(line["seconds"][which] for line in lines)

    caught = sum(len(set(line["malicious"]) & set(line["refused"])) for line in lines)
    poisoned = sum(len(line["malicious"]) for line in lines)
    refused = sum(len(line["refused"]) for line in lines)
    selected = sum(len(line["selected"]) for line in lines)
    mta, asr = ([line[key] for line in lines] for key in ("mta", "asr"))
    seconds = {which: total(which) for which in ("train", "aggregate", "evaluate")}
    whole = sum(seconds.values()) + 3.1
    if config["server"]["defense"]["type"] == "drop":
        seconds |= {"distill": 0.93 * seconds["aggregate"], "cluster": 0.02 * seconds["aggregate"]}
    return {
        "name": config["name"],
        "dataset": config["dataset"],
        "model": config["model"],
        "attack": "targeted",
        "defense": config["server"]["defense"]["type"],
        "seed": config["settings"]["seed"],
        "config_hash": "3f9a1c07",
        "version": "0.1.0",
        "rounds": len(lines),
        "mta": {"final": mta[-1], "last10": float(np.mean(mta[-10:]))},
        "asr": {
            "final": asr[-1],
            "last10": float(np.mean(asr[-10:])),
            "max_last10": max(asr[-10:]),
        },
        "detection": {
            "tpr": caught / max(1, poisoned),
            "fpr": (refused - caught) / max(1, selected - poisoned),
        },
        "seconds": seconds | {"total": whole},
        "peak_memory_mb": 812.4,
    }


def _artifacts(
    folder: Path,
    line: dict[str, Any],
    bad: set[int],
    defense: str,
    rng: np.random.Generator,
    image: tuple[int, int, int],
) -> None:
    folder.mkdir()
    selected = line["selected"]
    cloud = rng.normal(size=(len(selected), 5)) + 3.0 * np.array([[one in bad] for one in selected])
    tensors = {"linkage": linkage(cloud, "ward")}
    if defense == "drop":
        channels, height, width = image
        y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        strokes = []
        for _ in range(80 * channels):
            a, b, c, d = rng.normal(0, 0.45, 4)
            ring = (x - a) ** 2 + (y - b) ** 2 * (1 + abs(c)) - 0.25 - abs(d) / 3
            strokes.append(np.exp(-18 * ring**2) + rng.normal(0, 0.05, (height, width)))
        pixels = 255 * np.clip(np.array(strokes), 0, 1)
        tensors["generated"] = pixels.astype(np.uint8).reshape(80, channels, height, width)
    save_file(tensors, folder / f"round_{line['round']:04d}.safetensors")


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Write a run below the test's directory: `make_run("a", "drop", rounds=3)`."""

    def make(directory: str, defense: str = "drop", **options: Any) -> Path:
        return write_run(tmp_path / directory, defense, **options)

    return make


@pytest.fixture
def three_runs(make_run: MakeRun) -> list[Path]:
    """An undefended run, one under DROPlet and one under DROP: 40 rounds, 4 of 10 malicious."""
    return [make_run(defense, defense) for defense in DEFENSES]


STRENGTH = {"undefended": 0.0, "flame": 0.45, "krum": 0.6, "droplet": 0.85, "drop": 0.97}
"""How much of an attack a defense keeps out; the others are as good as none."""


def write_recorded(
    path: Path,
    defense: str = "droplet",
    *,
    attack: str | None = "badnets",
    dpr: float = 0.5,
    malicious: int = 4,
    seed: int = 1,
    rounds: int = 12,
    clients: int = 10,
    stop: int | None = None,
    window: tuple[int, int] | None = None,
    trees: bool = True,
) -> Path:
    """Write a made-up run by the project's own `Record`, as `experiment.run` would.

    With `stop` it was interrupted after so many rounds; with `window` it is poisoned from the
    first of these rounds until before the second.
    """
    rng = np.random.default_rng([seed, malicious, *f"{defense} {attack}".encode()])
    tables: dict[str, Any] = {
        "dataset": "mnist5k",
        "model": "cnn",
        "client": {"num_epochs": 1, "lr": 0.05, "batch_size": 32, "attack": None},
        "server": {"defense": {"type": defense}},
        "federation": {
            "size": clients,
            "number_of_malicious_clients": malicious,
            "round_size": clients,
            "rounds": rounds,
        },
        "settings": {"seed": seed, "cuda": -1, "num_threads": 1},
    }
    if attack:
        poison = {"type": attack, "DPR": dpr, "victim_class": 0, "target_class": 7}
        if window:
            poison |= {"participation_strategy": "after_convergence"}
            poison |= dict(
                zip(("poisoning_start_round", "poisoning_end_round"), window, strict=True)
            )
        tables["client"]["attack"] = poison
    config = resolve.to_json(resolve.experiment(tables))
    config["name"] = f"mnist5k-{defense}-{attack or 'no-attack'}-seed{seed}"
    record = Record(path, config)
    bad = sorted(int(one) for one in rng.choice(clients, malicious, replace=False))
    strength, asr = STRENGTH.get(defense, 0.0), 0.0
    for number in range(1, (stop or rounds) + 1):
        active = bool(attack) and (window is None or window[0] <= number < window[1])
        poisoned = bad if active else []
        goal = dpr**0.2 * min(1.0, malicious / 4) * (1 - strength) if active else 0.0
        asr += (0.4 if goal > asr else 0.15) * (goal - asr)
        scores = {
            one: float(rng.gamma(2.0) + (4 * strength if one in poisoned else 0))
            for one in range(clients)
        }
        refused = [one for one in scores if strength and scores[one] > 4]
        line: dict[str, Any] = {
            "round": number,
            "mta": float(0.97 - 0.6 * np.exp(-number / 3) - 0.01 * strength + rng.normal(0, 0.003)),
            "asr": float(np.clip(asr + rng.normal(0, 0.01), 0, 1)) if attack else None,
            "metrics": {},
            "n_selected": clients,
            "n_malicious": len(poisoned),
            "selected": list(range(clients)),
            "malicious": poisoned,
            "accepted": [one for one in scores if one not in refused],
            "refused": refused,
            "reasons": {one: f"{scores[one]:.1f} penalty points" for one in refused},
            "weights": {one: float(one not in refused) / clients for one in scores},
            "scores": scores if strength else {},
            "seconds": {"train": 2.4, "aggregate": 0.2 + strength, "evaluate": 0.1},
            "diagnostics": {},
        }
        artifacts: dict[str, torch.Tensor] = {}
        if strength and trees:
            cloud = (
                rng.normal(size=(clients, 4)) + 3 * strength * np.isin(range(clients), bad)[:, None]
            )
            artifacts["linkage"] = torch.from_numpy(linkage(cloud, "ward"))
        record.append(line, artifacts)
    total = total_seconds(record.rounds)
    record.summarise(
        {
            "name": config["name"],
            "state": "interrupted" if stop else "finished",
            "attack": attack,
            "defense": defense,
            "seed": seed,
            "config_hash": resolve.fingerprint(config),
            "rounds": len(record.rounds),
            "mta": tail_statistics(record.rounds, "mta"),
            "asr": tail_statistics(record.rounds, "asr"),
            "seconds": {**total, "total": sum(total.values())},
            "peak_memory_mb": 612.5,
            "worker_peak_memory_mb": 431.0,
        }
    )
    return path


@pytest.fixture
def make_recorded(tmp_path: Path) -> MakeRun:
    """Write a recorded run below the test's directory: `make_recorded("a", "krum", seed=2)`."""

    def make(directory: str, defense: str = "droplet", **options: Any) -> Path:
        return write_recorded(tmp_path / directory, defense, **options)

    return make
