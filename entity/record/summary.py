"""`summary.json`: a run in numbers."""

import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any

from entity import __version__
from entity.config.fields import ExperimentConfig
from entity.metrics import Detection
from entity.record.consistency import Consistency, consistency
from entity.record.window import Window, last_evaluated

MAIN_PHASES = ("train", "aggregate", "evaluate")
"""Phases that make up a round; the others are parts of these."""


def summarise(
    config: ExperimentConfig,
    config_hash: str,
    rounds: Sequence[Mapping[str, Any]],
    detection: Detection,
    *,
    state: str,
    before: Mapping[str, Any],
    poisoned_share: float | None = None,
) -> dict[str, Any]:
    """Return the summary of a run.

    Parameters
    ----------
    config, config_hash
        The run's configuration and its identity.
    rounds
        Lines of `rounds.jsonl`, None for NaN.
    detection
        Refusals of all these rounds, counted.
    state
        `running`, `interrupted` or `finished`.
    before
        The summary that the run had when it was resumed; empty for a new one.
    poisoned_share
        Of all samples of the malicious clients, those that they poison; None without any.
    """
    attack = config.client.attack if config.client.attacked_by != "none" else None
    asr = tail_statistics(rounds, "asr")
    metrics = [line.get("metrics", {}) for line in rounds]
    return {
        "name": config.name,
        "state": state,
        "dataset": config.dataset,
        "model": config.model,
        "attack": attack and attack.type,
        "defense": config.server.defense.type,
        "seed": config.settings.seed,
        "config_hash": config_hash,
        "version": __version__,
        "rounds": len(rounds),
        "window": Window.of(rounds).as_json(),
        "mta": tail_statistics(rounds, "mta"),
        "asr": asr,
        "asr_max_last10": asr["max_last10"],
        "consistency": _consistency(rounds),
        "victim_accuracy": tail_statistics(metrics, "victim_accuracy"),
        "dpr": {"of_victims": attack and attack.DPR, "of_all": poisoned_share},
        "detection": {name: getattr(detection, name) for name in ("tpr", "fpr", "precision", "f1")},
        "refusals": detection.true_positives + detection.false_positives,
        "undecided": sum(len(line.get("undecided", ())) for line in rounds),
        "lost": sum(len(line.get("lost", ())) for line in rounds),
        "seconds": _seconds(rounds),
        **_memory(before),
    }


def _seconds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    seconds = total_seconds(rounds)
    total = sum(seconds.get(phase, 0.0) for phase in MAIN_PHASES)
    return {**seconds, "total": round(total, 3)}


def _memory(before: Mapping[str, Any]) -> dict[str, float]:
    peaks = {
        "peak_memory_mb": peak_memory_mb(),
        "worker_peak_memory_mb": peak_memory_mb(of_workers=True),
    }
    return {name: max(peak, before.get(name, 0)) for name, peak in peaks.items()}


def _consistency(rounds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    found = consistency((line["round"], line["mta"], line["asr"]) for line in rounds)
    return asdict(found or Consistency(0, 0, None, None))


def tail_statistics(rounds: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Return `final`, `last10` (mean) and `max_last10` of a metric over the last evaluated rounds.

    All three are None where no round was evaluated.
    """
    recent = last_evaluated(line.get(name) for line in rounds)
    if not recent:
        return {"final": None, "last10": None, "max_last10": None}
    return {"final": recent[-1], "last10": fmean(recent), "max_last10": max(recent)}


def total_seconds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of all rounds by phase."""
    totals: dict[str, float] = {}
    for line in rounds:
        for phase, seconds in line["seconds"].items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    return {phase: round(seconds, 3) for phase, seconds in totals.items()}


def peak_memory_mb(of_workers: bool = False) -> float:
    """Return the largest resident size so far of this process, or of its largest ended child."""
    who = resource.RUSAGE_CHILDREN if of_workers else resource.RUSAGE_SELF
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(who).ru_maxrss / unit, 1)
