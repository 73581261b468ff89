"""A run that another process writes: its state, its rounds so far, the time that is left.

Everything is read from files, so that it works from another terminal or another machine that
shares the folder.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from entity.config.schema import ConfigError
from entity.reading import parse_json, read_bytes
from entity.record.directory import ERROR, NoRun, read_summary
from entity.record.follow import Tail, last_line
from entity.record.json_fields import at, attack_of, ids, mapping, number, numbers, text
from entity.record.rounds import fault_of
from entity.record.summary import MAIN_PHASES
from entity.results.state import State, state_of

_RECENT = 10
"""Rounds, the latest, by which the time of the remaining ones is estimated."""


@dataclass
class FollowedRun:
    """A run as far as its record has been read.

    Parameters
    ----------
    folder
        The run directory.

    Raises
    ------
    NoRun
        If the folder holds no run.
    ConfigError
        If its config cannot be read.
    """

    folder: Path
    config: dict[str, object] = field(init=False)
    lines: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    state: State = "running"
    reason: str = ""
    """Why it failed."""
    last: float = field(default_factory=time.time)
    """When the last round was written, or else the config."""

    def __post_init__(self) -> None:
        path = self.folder / "config.json"
        if not path.exists() and not path.is_symlink():
            runs = [path.parent.name for path in sorted(self.folder.glob("*/config.json"))[:5]]
            hint = f" Runs in it: {', '.join(runs)}." if runs else ""
            raise NoRun(self.folder, hint)
        try:
            self.config = mapping(parse_json(read_bytes(path)))
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror}).") from error
        except ValueError as error:
            raise ConfigError(f"{path}: cannot be read (no JSON: {error}).") from error
        self._tail = Tail(self.folder)

    def look(self) -> list[Mapping[str, Any]]:
        """Read on, and return the rounds that are new."""
        # The state first: rounds that are written after that belong to a run that still goes on.
        self.state, self.reason = self._state()
        new: list[Mapping[str, Any]] = list(self._tail)
        self.lines += new
        for path in (self.folder / "rounds.jsonl", self.folder / "config.json"):
            if path.exists():
                self.last = path.stat().st_mtime
                break
        return new

    @property
    def damage(self) -> str:
        """Say what of the record cannot be read; "" while all can."""
        return self._tail.damage or next(
            (f"round {line['round']}: {said}" for line in self.lines if (said := fault_of(line))),
            "",
        )

    @property
    def rounds(self) -> int:
        """Return how many rounds are planned."""
        value = at(self.config, "federation.rounds")
        return value if isinstance(value, int) else self.done

    @property
    def done(self) -> int:
        """Return the number of the last round."""
        return int(self.lines[-1]["round"]) if self.lines else 0

    @property
    def title(self) -> str:
        """Return name, data set, model, defense and attack in a line."""
        attack = attack_of(self.config) or "no attack"
        defense = at(self.config, "server.defense.type") or "undefended"
        return (
            f"{self.config.get('name') or self.folder.name}: {self.config.get('dataset')}, "
            f"{self.config.get('model')}, {defense} against {attack}"
        )

    @property
    def left(self) -> float | None:
        """Return the estimated seconds until the end; None if it has ended, or before round 1."""
        if self.state != "running" or not self.lines:
            return None
        mean = fmean(seconds_of(line) for line in self.lines[-_RECENT:])
        # A round that takes longer than those before it is not over yet, whatever the mean says.
        begun = min(max(0.0, time.time() - self.last), mean)
        return max(0.0, mean * (self.rounds - self.done) - begun)

    def _state(self) -> tuple[State, str]:
        state = state_of(self.folder, text(read_summary(self.folder), "state"))
        return state, last_line(self.folder / ERROR) if state == "failed" else ""


def seconds_of(line: Mapping[str, Any]) -> float:
    """Return how long a round took."""
    seconds = numbers(line, "seconds")
    return sum(seconds.get(name, 0.0) for name in MAIN_PHASES)


_BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float | None], width: int) -> str:
    """Draw shares from 0 to 1 as one line of bars; means of neighbours if there are too many.

    Examples
    --------
    >>> sparkline([0.0, 0.5, None, 1.0], 8), sparkline([0.0, 0.0, 1.0, 1.0], 2)
    ('▁▅ █', '▁█')
    """
    if len(values) > width:
        edges = [i * len(values) // width for i in range(width + 1)]
        parts = [values[a:b] for a, b in pairwise(edges)]
        values = [_mean(part) for part in parts]
    return "".join(" " if value is None else _bar(value) for value in values)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _bar(value: float) -> str:
    return _BARS[min(len(_BARS) - 1, max(0, int(value * len(_BARS))))]


def shares(lines: list[Mapping[str, Any]], name: str) -> list[float | None]:
    """Return a metric of every round, None where it was not evaluated."""
    return [number(line, name) for line in lines]


def refused_of(line: Mapping[str, Any], most: int) -> str:
    """Return the refused clients, attackers with a star, in at most so many characters.

    Examples
    --------
    >>> refused_of({"refused": [3, 14, 15], "malicious": [14]}, 20)
    '3: 3 14* 15'
    >>> refused_of({"refused": [3, 14, 15], "malicious": [14]}, 9)
    '3: 3 ...'
    """
    refused, malicious = ids(line, "refused"), set(ids(line, "malicious"))
    names = [f"{client}{'*' if client in malicious else ''}" for client in refused]
    text = f"{len(names)}: {' '.join(names)}" if names else "0"
    while len(text) > most and names:
        names.pop()
        text = f"{len(refused)}: {' '.join([*names, '...'])}"
    return text
