"""A federation that another process runs, read from its state folder."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from entity.config.schema import ConfigError
from entity.deployment import status
from entity.deployment.decisions import client_of, read
from entity.deployment.metrics import Totals, is_refused, judged, refused
from entity.record.follow import Tail
from entity.record.json_fields import mapping, number, numbers, text, texts
from entity.record.json_files import read_object
from entity.record.lock import is_locked

State = Literal["running", "finished", "failed", "stopped"]

_OVER = (status.FINISHED, status.FAILED)


@dataclass
class FollowedFederation:
    """A federation as far as its state folder has been read.

    Parameters
    ----------
    folder
        The state folder.

    Raises
    ------
    ConfigError
        If no strategy has written into it.
    """

    folder: Path
    lines: list[Mapping[str, Any]] = field(default_factory=list[Mapping[str, Any]])
    now: dict[str, Any] = field(default_factory=dict[str, Any])
    """What `status.json` says."""
    state: State = "running"
    totals: Totals = field(default_factory=Totals)

    def __post_init__(self) -> None:
        if not any((self.folder / name).is_file() for name in (status.FILE, "rounds.jsonl")):
            raise ConfigError(
                f"{self.folder}: is no state folder of a federation, or its server app has not "
                "begun; it is what the run config names as state."
            )
        self._tail = Tail(self.folder)

    def look(self) -> list[Mapping[str, Any]]:
        """Read on, and return the rounds that are new."""
        alive = is_locked(self.folder)  # first: what is written after that belongs to who holds it
        self.now = read_object(self.folder / status.FILE)
        stage = text(self.now, "stage")
        if alive is None:
            alive = stage not in _OVER  # no locks here; trust the status
        if alive:
            self.state = "running"
        elif stage in _OVER:
            self.state = "finished" if stage == status.FINISHED else "failed"
        else:
            self.state = "stopped"
        new: list[Mapping[str, Any]] = list(self._tail)
        for line in new:
            self.totals.add(line)
        self.lines += new
        return new

    @property
    def damage(self) -> str:
        """Say what of the rounds cannot be read; "" while all can."""
        return self._tail.damage

    @property
    def done(self) -> int:
        """Return the number of the last finished round."""
        return int(self.lines[-1]["round"]) if self.lines else 0

    @property
    def rounds(self) -> int:
        """Return how many rounds are planned."""
        return max(self.done, int(number(self.now, "rounds") or 0))

    @property
    def reason(self) -> str:
        """Return why it failed."""
        return text(self.now, "reason") if self.state == "failed" else ""

    @property
    def doing(self) -> str:
        """Say in a few words what is done now."""
        if self.state != "running":
            return f"{self.state}: {self.reason}" if self.reason else self.state
        stage = text(self.now, "stage")
        if stage in _OVER or not stage:
            return "starting"
        whole = {name: int(value) for name in self.now if (value := number(self.now, name))}
        said = {
            status.WAITING: f"waiting for nodes: {whole.get('connected', 0)} of "
            f"{whole.get('needed', 0)} connected",
            status.TRAINING: f"training: {whole.get('replies', 0)} of {whole.get('asked', 0)} "
            "replies",
            status.AGGREGATING: f"aggregating {whole.get('sound', 0)} updates",
        }.get(stage, stage)
        since = number(self.now, "since")
        return said if since is None else f"{said}, {max(0, round(time.time() - since))} s"


@dataclass(frozen=True)
class Standing:
    """How a client stands in a federation."""

    client: str
    """Id of the node that it was first."""
    name: str
    """Under which the operator registered its node; "" for none."""
    rounds: int
    """In which it was asked."""
    refused: int
    last_refused: int
    """Round of the last refusal; 0 without one."""
    reason: str
    """Of the last refusal."""

    def __str__(self) -> str:
        return f"{self.client} ({self.name})" if self.name else self.client


def summary_of(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return a round's line as programs want it: who was refused and why, by client."""
    verdicts, names = judged(line), texts(line, "names")
    return {
        "round": line.get("round"),
        "time": line.get("time"),
        "asked": len(verdicts),
        "accepted": sum(bool(v.get("accepted")) for v in verdicts),
        "undecided": sum(bool(v.get("undecided")) for v in verdicts),
        "refused": [
            {
                "client": text(v, "client"),
                "name": names.get(text(v, "client"), ""),
                "reason": text(v, "reason"),
            }
            for v in refused(line)
        ],
        "aggregated": line.get("aggregated"),
        "seconds": seconds_of(line),
        "decisions": [
            {**decision, "name": names.get(text(decision, "client"), "")}
            for decision in map(mapping, line.get("decisions") or ())
        ],
    }


def seconds_of(line: Mapping[str, Any]) -> float:
    """Return how long the server was busy with a round, the wait for its replies included."""
    return sum(s for name, s in numbers(line, "seconds").items() if " " not in name)


def standings(lines: list[Mapping[str, Any]]) -> dict[str, Standing]:
    """Return how every client stands, by the id of its first node."""
    found: dict[str, Standing] = {}
    for line in lines:
        names = texts(line, "names")
        for verdict in judged(line):
            client = text(verdict, "client")
            old = found.get(client) or Standing(client, "", 0, 0, 0, "")
            out = is_refused(verdict)
            found[client] = Standing(
                client,
                names.get(client, old.name),
                old.rounds + 1,
                old.refused + out,
                int(line["round"]) if out else old.last_refused,
                text(verdict, "reason") if out else old.reason,
            )
    return found


def find(folder: Path, given: str) -> Standing:
    """Return the client that an operator means by a node's id or its registered name.

    Parameters
    ----------
    folder
        The state folder.
    given
        Id of any node that the client is or was, or its name.

    Raises
    ------
    ConfigError
        If it is none, or a name that two clients have; or the folder is no state folder.
    """
    federation = FollowedFederation(folder)
    federation.look()
    known = standings(federation.lines)
    client = client_of(read(folder)[0], given)
    if client in known:
        return known[client]
    named = [each for each in known.values() if each.name == given]
    if len(named) == 1:
        return named[0]
    if named:
        clients = ", ".join(each.client for each in named)
        raise ConfigError(f"{given}: is the name of several clients ({clients}); give an id.")
    lost = [line for line in federation.lines if line.get("lost")]
    if lost and given.isascii() and given.isdecimal():
        return Standing(given, "", 0, 0, 0, "")  # it may have been in a round that nothing tells of
    refused_ones = [str(each) for each in known.values() if each.refused]
    shown = ", ".join(refused_ones[:5]) + (", ..." if len(refused_ones) > 5 else "")
    raise ConfigError(
        f"{given}: is no client of the {federation.done} rounds in {folder}; "
        + (f"refused were {shown}." if shown else "none was refused.")
    )
