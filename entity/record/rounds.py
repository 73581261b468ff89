"""A finished round, and its line of `rounds.jsonl`."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entity.config.schema import ConfigError, show
from entity.reading import parse_json, read_bytes
from entity.record.json_fields import mapping, number, numbers
from entity.updates import Aggregation

MOST_BYTES = 1 << 31
"""Size of a `rounds.jsonl`: 12,000 rounds of 1,000 clients."""

Line = Mapping[str, object]
"""A line of `rounds.jsonl`, read back."""


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
        Those of a round that kept the global model are `undecided`: not accepted, nor refused.
        """
        scores, verdicts = self.scores, self.answer.verdicts
        judged = {verdict.client for verdict in verdicts}
        trained = [client for client in self.selected if client in judged]
        poisoned = sorted(self.poisoned & judged)
        lost = [client for client in self.selected if client not in judged]
        undecided = [verdict.client for verdict in verdicts if verdict.undecided]
        refused = [v.client for v in verdicts if not v.accepted and not v.undecided]
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
            "refused": refused,
            **({"undecided": undecided} if undecided else {}),
            "reasons": {verdict.client: verdict.reason for verdict in verdicts if verdict.reason},
            "weights": {verdict.client: verdict.weight for verdict in verdicts},
            "scores": {v.client: v.score for v in verdicts if v.score is not None},
            "seconds": {name: round(s, 4) for name, s in {**self.seconds, **phases}.items()},
            "diagnostics": dict(self.answer.diagnostics),
        }


def unjudged(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line as it would be had its round not been evaluated."""
    seconds = {phase: s for phase, s in line["seconds"].items() if phase != "evaluate"}
    return {**line, "mta": None, "asr": None, "metrics": {}, "seconds": seconds}


def whole_lines(folder: Path, whole: Callable[[Line], bool] = lambda line: True) -> list[bytes]:
    """Return the lines of `rounds.jsonl` up to the first that is damaged or missing.

    Parameters
    ----------
    folder
        The run directory.
    whole
        Says whether a line has the fields that its reader needs; one that has not is damaged.

    Raises
    ------
    ConfigError
        If there is something in the file's place that cannot be read.
    """
    path = folder / "rounds.jsonl"
    lines: list[bytes] = []
    for line in content(path).splitlines(keepends=True):
        values = _values(line)
        if _number(values) != len(lines) + 1 or not whole(values):
            break
        lines.append(line)
    return lines


def readable_lines(path: Path) -> dict[int, bytes]:
    """Return the lines of a `rounds.jsonl` that are not damaged, whatever is between, by round."""
    lines = content(path).splitlines(keepends=True)
    return {number: line for line in lines if (number := _number(_values(line))) > 0}


def content(path: Path) -> bytes:
    """Read a `rounds.jsonl`; empty where there is none.

    Raises
    ------
    ConfigError
        If there is something in its place that cannot be read.
    """
    try:
        return read_bytes(path, MOST_BYTES)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error


def of_a_run(line: Line) -> bool:
    """Whether a line has what a run's summary is made of; `Round.line` has."""
    judged = all(name in line and _is_share(line[name]) for name in ("mta", "asr"))
    times = line.get("seconds")
    return judged and isinstance(times, dict) and len(numbers(line, "seconds")) == len(times)


def fault_of(line: Line) -> str:
    """Say what is no number in a line where one should be; "" without any.

    Examples
    --------
    >>> fault_of({"round": 1, "mta": "0.9", "asr": None}), fault_of({"round": 1, "mta": 0.9})
    ('mta = "0.9" is no number', '')
    """
    for name in ("mta", "asr"):
        value = line.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            return f"{name} = {show(value)} is no number"
    return ""


def _is_share(value: object) -> bool:
    return value is None or number({"": value}, "") is not None


def _values(line: bytes) -> dict[str, object]:
    """Return the fields of a line; none if it is damaged or cut off."""
    try:
        return mapping(parse_json(line)) if line.endswith(b"\n") else {}
    except ValueError:
        return {}


def _number(line: Line) -> int:
    """Return the number of a line's round; 0 if it has none."""
    number = line.get("round")
    return number if isinstance(number, int) and not isinstance(number, bool) else 0
