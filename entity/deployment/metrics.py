"""A federation's figures for Prometheus, as a file for node_exporter's textfile collector.

A file, and no port: Flower starts the server app as a process of its own for every run, and ends
it after that. Two runs would fight for one port, and after a crash there would be nobody to ask
just when the alert is due. The file outlives the process, needs nothing but the node_exporter that
the machine has, and is replaced whole. Counters go on after a restart, as they are made from the
rounds of the state folder.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from entity.config.schema import ConfigError
from entity.deployment.reasons import OF_THE_SERVER, counted, kind_of
from entity.record.atomic import write_atomically, writing
from entity.record.json_fields import mapping, number, numbers, text
from entity.record.links import open_own

log = logging.getLogger("entity")

ENDING = ".prom"
"""Of the files that node_exporter reads; half-written ones have another."""

METRICS: Mapping[str, tuple[str, str]] = {
    "drop_info": ("gauge", "1, with the defense and the version of the software as labels."),
    "drop_running": ("gauge", "1 while a run goes on, 0 after its last round or its failure."),
    "drop_rounds_planned": ("gauge", "Rounds that the run has in all."),
    "drop_round": ("gauge", "Number of the last finished round."),
    "drop_rounds_total": ("counter", "Finished rounds by what became of the global model."),
    "drop_run_started_timestamp_seconds": ("gauge", "When the run began or went on, since 1970."),
    "drop_last_round_timestamp_seconds": ("gauge", "When the last round ended, since 1970."),
    "drop_asked_clients": ("gauge", "Clients that were sent the model in the last round."),
    "drop_accepted_clients": ("gauge", "Clients that the defense accepted in the last round."),
    "drop_refused_clients": ("gauge", "Clients that were refused in the last round."),
    "drop_undecided_clients": ("gauge", "Sound replies of a last round that kept the model."),
    "drop_refusals_total": ("counter", "Refusals by the kind of their reason."),
    "drop_stage_seconds_total": ("counter", "Seconds of the server by stage of the round."),
    "drop_defense_seconds_total": ("counter", "Seconds within stage aggregate by its part."),
    "drop_pardons_total": ("counter", "Pardons that were carried out."),
    "drop_score": ("gauge", "What the operator's own evaluation says of the global model."),
}
"""Type and meaning of every metric, by name."""

Series = dict[tuple[tuple[str, str], ...], float]


@dataclass
class Totals:
    """What the rounds of a federation add up to."""

    rounds: dict[str, int] = field(default_factory=dict[str, int])
    refusals: dict[str, int] = field(default_factory=dict[str, int])
    stages: dict[str, float] = field(default_factory=dict[str, float])
    parts: dict[str, float] = field(default_factory=dict[str, float])
    pardons: int = 0
    last: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The last round."""

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a round, as its line of `rounds.jsonl` has it."""
        known = {True: "new", False: "kept", None: "lost"}
        _count(self.rounds, known.get(line.get("aggregated"), "lost"))
        for kind in counted(
            [kind_of(text(verdict, "reason")) for verdict in refused(line)], list(self.refusals)
        ):
            _count(self.refusals, kind)
        for name, seconds in numbers(line, "seconds").items():
            stage, _, part = name.partition(" ")
            of = self.parts if part else self.stages
            of[part or stage] = of.get(part or stage, 0.0) + max(0.0, seconds)
        decisions: Sequence[object] = line.get("decisions") or ()
        self.pardons += sum(mapping(each).get("kind") == "pardon" for each in decisions)
        self.last = line


def _count(totals: dict[str, int], name: str) -> None:
    totals[name] = totals.get(name, 0) + 1


def judged(line: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the verdicts of a round's line."""
    found: object = line.get("verdicts")
    return [mapping(each) for each in found] if isinstance(found, list | tuple) else []


def refused(line: Mapping[str, Any]) -> list[dict[str, object]]:
    """Return the verdicts on the clients that were refused in a round."""
    return [verdict for verdict in judged(line) if is_refused(verdict)]


def is_refused(verdict: Mapping[str, object]) -> bool:
    """Whether a verdict of a line is that its client was refused."""
    return not verdict.get("accepted") and not verdict.get("undecided")


class MetricsFile:
    """Writer of the file; without a path it writes nothing.

    Parameters
    ----------
    path
        The file; its name without the ending is the label `federation`, by which several
        federations of one machine are told apart.
    clock
        Seconds since 1970.

    Raises
    ------
    ConfigError
        If the name does not end in `.prom`, or the folder is not there or cannot be written.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.clock = clock
        self.totals = Totals()
        self._facts: dict[str, str] = {}
        self._planned = 0
        self._started: float | None = None
        self._scores: dict[str, float] = {}
        self._warned = False
        if path is None:
            return
        if path.suffix != ENDING:
            raise ConfigError(
                f"{path}: allowed is a name that ends in {ENDING}, which node_exporter reads."
            )
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: allowed is a file in a folder that is there.")
        probe = path.with_name(f".{path.name}.probe")  # another process may write the file itself
        with writing(path):
            open_own(probe, "wb").close()
            probe.unlink()

    def begin(
        self, rounds: Iterable[Mapping[str, Any]], planned: int, defense: str, version: str
    ) -> None:
        """Begin, or go on after the rounds that were played before.

        Parameters
        ----------
        rounds
            Their lines of `rounds.jsonl`.
        planned
            Rounds in all.
        defense, version
            Labels of `drop_info`.
        """
        self.totals = Totals()
        for line in rounds:
            self.totals.add(line)
        self._planned = planned
        self._facts = {"defense": defense, "version": version}
        self._started = self.clock()
        self.write(running=True)

    def add(self, line: Mapping[str, Any]) -> None:
        """Add a finished round."""
        self.totals.add({"time": self.clock(), **line})
        self.write(running=True)

    def scored(self, scores: Mapping[str, Any]) -> None:
        """Show what an evaluation came to; only single finite numbers can be shown."""
        found = {name: value for name in scores if (value := number(scores, name)) is not None}
        if found:
            self._scores = found
            self.write(running=True)

    def write(self, *, running: bool) -> None:
        """Replace the file; what is only for looking at ends no round."""
        if self.path is None:
            return
        try:
            write_atomically(self.path, self.text(running=running).encode())
            self.path.chmod(0o644)  # node_exporter is another user
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("%s cannot be written (%s)", self.path, error.strerror)

    def text(self, *, running: bool) -> str:
        """Return the file's text, in Prometheus' exposition format 0.0.4."""
        totals, last = self.totals, self.totals.last
        verdicts = judged(last)
        accepted = sum(bool(v.get("accepted")) for v in verdicts)
        series: dict[str, Series] = {
            "drop_info": {tuple(self._facts.items()): 1},
            "drop_running": _one(running),
            "drop_rounds_planned": _one(self._planned),
            "drop_round": _one(number(last, "round") or 0),
            "drop_rounds_total": _by("model", {"new": 0, "kept": 0} | totals.rounds),
            "drop_run_started_timestamp_seconds": _one(self._started),
            "drop_last_round_timestamp_seconds": _one(number(last, "time")),
            "drop_asked_clients": _one(len(verdicts) if last else None),
            "drop_accepted_clients": _one(accepted if last else None),
            "drop_refused_clients": _one(len(refused(last)) if last else None),
            "drop_undecided_clients": _one(
                sum(bool(v.get("undecided")) for v in verdicts) if last else None
            ),
            "drop_refusals_total": _by(
                "reason", dict.fromkeys(sorted(OF_THE_SERVER), 0) | totals.refusals
            ),
            "drop_stage_seconds_total": _by("stage", totals.stages),
            "drop_defense_seconds_total": _by("part", totals.parts),
            "drop_pardons_total": _one(totals.pardons),
            "drop_score": _by("name", self._scores),
        }
        federation = self.path.stem if self.path is not None else ""
        return "".join(_lines(name, values, federation) for name, values in series.items())


def _one(value: float | None) -> Series:
    return {} if value is None else {(): float(value)}


def _by(label: str, values: Mapping[str, float]) -> Series:
    return {((label, name),): value for name, value in values.items()}


def _lines(name: str, series: Series, federation: str) -> str:
    if not series:
        return ""
    kind, meaning = METRICS[name]
    lines = [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}"]
    for labels, value in series.items():
        pairs = [("federation", federation), *labels]
        inside = ",".join(f'{label}="{_escaped(text)}"' for label, text in pairs)
        lines.append(f"{name}{{{inside}}} {_number(value)}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
