"""Rounds of the paper's table III on CIFAR-10 (C4, DPR 1.25 %), as many as fit, resumable.

The configurations are `cifar10/*.json` as they are shipped: rate 0.01, batch 64, 2 epochs, MCR 20 %
and DPR 0.125 of the victim class, which with ten classes is the paper's 1.25 % of all samples.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from card.budget import Budget, TimeUp
from card.rounds import TINY_DROP, Enough, shipped_config
from entity import experiment
from entity.record.consistency import consistency

PAPER = {"undefended": (87.55, 85.5), "droplet": (87.49, 91.3), "drop": (76.05, 1.3)}
"""The paper's MTA and ASR in table III, in percent."""

HALF: dict[str, dict[str, object]] = {
    "undefended": {"amp_enabled": "true"},
    "droplet": {"amp_enabled": "true"},
    "drop": {"client.amp_enabled": "true", "defense_args.amp_enabled": "true"},
}


def play(
    name: str,
    device: torch.device,
    folder: Path,
    budget: Budget,
    *,
    half: bool,
    tiny: bool,
    distillation: float,
) -> dict[str, Any]:
    """Go on with a cell for as long as there is time, and say how far it is.

    Parameters
    ----------
    name
        Its defense.
    device
        Where clients train.
    folder
        The run; what it holds already is not done again.
    budget
        Of this cell.
    half
        Train and distil in bfloat16; the paper does not say what it used.
    tiny
        A few images, clients and rounds.
    distillation
        Seconds that a distillation is expected to take; none is begun that would not end.
    """
    fields = dict(HALF[name]) if half else {}
    if tiny and name == "drop":
        fields |= TINY_DROP
    config = shipped_config(name, device, fields, tiny)
    every = getattr(config.server.defense.defense_args, "K", 0)
    seen: list[float] = []
    began, why = time.perf_counter(), "all rounds are done"

    def stop_if_late(done: int) -> None:
        nonlocal why
        expected = 1.5 * (median(seen) if seen else 0.0)
        if every > 0 and (done + 1) % every == 0:
            expected += 1.1 * distillation
        if budget.left < expected:
            why = f"{budget.left:.0f} s left, {expected:.0f} s wanted for the next round"
            raise Enough

    def on_round(line: Mapping[str, Any]) -> None:
        nonlocal began
        now = time.perf_counter()
        if "distilled" not in line["diagnostics"]:
            seen.append(now - began)
        began = now
        stop_if_late(line["round"])

    resume = (folder / "config.json").exists()
    try:
        stop_if_late(len(_rounds(folder)))
        experiment.run(config, folder, on_round=on_round, resume=resume)
    except Enough:
        pass
    except TimeUp:
        why = "cut off in a round, which is done again by the next call"
    return {
        "cell": name,
        "half": half,
        "stopped": why,
        "distils": every > 0,
        **standing(folder, config.federation.rounds),
    }


def standing(folder: Path, of: int) -> dict[str, Any]:
    """Return what a run has come to so far: its last ten evaluated rounds, its worst ASR.

    Parameters
    ----------
    folder
        The run.
    of
        Its rounds, once it is finished.
    """
    lines = _rounds(folder)
    mta = [line["mta"] for line in lines if line.get("mta") is not None]
    asr = [line["asr"] for line in lines if line.get("asr") is not None]
    worst = consistency((line["round"], line.get("mta"), line.get("asr")) for line in lines)
    plain = [line for line in lines[1:] if "distilled" not in line["diagnostics"]]
    return {
        "rounds": len(lines),
        "of": of,
        "mta": fmean(mta[-10:]) if mta else None,
        "asr": fmean(asr[-10:]) if asr else None,
        "asr_worst": None if worst is None else worst.worst_asr,
        "seconds": median([sum_of(line) for line in plain]) if plain else None,
        "distilled": sum("distilled" in line["diagnostics"] for line in lines),
    }


def sum_of(line: Mapping[str, Any]) -> float:
    """Return the seconds of a round's training, aggregation and evaluation."""
    return sum(line["seconds"].get(phase, 0.0) for phase in ("train", "aggregate", "evaluate"))


def _rounds(folder: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a run's record."""
    path = folder / "rounds.jsonl"
    if not path.exists():
        return []
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
