"""A finished round, and its line of `rounds.jsonl`."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entity.updates import Aggregation


@dataclass(frozen=True)
class Round:
    """What happened in one round."""

    number: int
    selected: tuple[int, ...]
    """Clients that were asked to train, in increasing order."""
    poisoned: frozenset[int]
    """Those of them that poisoned in this round."""
    answer: Aggregation
    scores: Mapping[str, float]
    """What the judge measured; empty where the round was not evaluated."""
    seconds: Mapping[str, float]
    """Time by phase: `train`, `aggregate` and, where it was evaluated, `evaluate`."""

    def line(self) -> dict[str, Any]:
        """Return the round's line of `rounds.jsonl`.

        Clients whose workers died are `lost`, and stand nowhere else: nobody has judged them.
        """
        scores, verdicts = self.scores, self.answer.verdicts
        judged = {verdict.client for verdict in verdicts}
        trained = [client for client in self.selected if client in judged]
        poisoned = sorted(self.poisoned & judged)
        lost = [client for client in self.selected if client not in judged]
        phases = {f"aggregate_{phase}": value for phase, value in self.answer.seconds.items()}
        return {
            "round": self.number,
            "mta": scores.get("mta", math.nan),
            "asr": scores.get("asr", math.nan),
            "metrics": {name: scores[name] for name in scores if name not in ("mta", "asr")},
            "n_selected": len(trained),
            "n_malicious": len(poisoned),
            "selected": trained,
            "malicious": poisoned,
            **({"lost": lost} if lost else {}),
            "accepted": [verdict.client for verdict in verdicts if verdict.accepted],
            "refused": [verdict.client for verdict in verdicts if not verdict.accepted],
            "reasons": {verdict.client: verdict.reason for verdict in verdicts if verdict.reason},
            "weights": {verdict.client: verdict.weight for verdict in verdicts},
            "scores": {v.client: v.score for v in verdicts if v.score is not None},
            "seconds": {name: round(s, 4) for name, s in {**self.seconds, **phases}.items()},
            "diagnostics": dict(self.answer.diagnostics),
        }


def whole_lines(folder: Path) -> list[bytes]:
    """Return the lines of a run's `rounds.jsonl` up to the first that is damaged or missing."""
    path = folder / "rounds.jsonl"
    whole: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        if _number(line) != len(whole) + 1:
            break
        whole.append(line)
    return whole


def readable_lines(path: Path) -> dict[int, bytes]:
    """Return the lines of a `rounds.jsonl` that are not damaged, whatever is between, by round."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return {number: line for line in lines if (number := _number(line)) > 0}


def _number(line: bytes) -> int:
    """Return the number of a line's round; 0 if it is damaged or cut off."""
    try:
        number = json.loads(line)["round"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return 0
    return number if type(number) is int and line.endswith(b"\n") else 0
