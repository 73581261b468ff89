"""The operator's decisions about single clients: pardons, and keys that were replaced.

`drop deploy pardon` and `drop deploy rekey` append a line to `decisions.jsonl` in the state folder,
with the time, the reason and who it was. The strategy carries out what is new before it chooses
the nodes of a round; what it has carried out is a part of its checkpoint, so that a restart neither
forgets a decision nor carries it out twice.

A client is called by the id of the node that it was first. After its key was replaced it is another
node to Flower; here it stays who it was, with its place in the draw of nodes, its penalties and its
history.
"""

import getpass
import hashlib
import json
import logging
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol, cast

from entity.config.schema import ConfigError
from entity.reading import parse_json
from entity.record.atomic import writing
from entity.record.json_fields import mapping
from entity.record.links import open_own
from entity.record.rounds import content

log = logging.getLogger("entity")

FILE = "decisions.jsonl"

LONGEST = 300
"""Letters of a reason."""


@dataclass(frozen=True)
class Decision:
    """A line of `decisions.jsonl`."""

    kind: Literal["pardon", "rekey"]
    client: str
    """Id of the node that the client was first."""
    reason: str
    time: str
    """When, as ISO 8601 in UTC."""
    by: str
    """Login and machine."""
    node: str = ""
    """Of a rekey: id of the node that the client is from now on."""

    @property
    def identity(self) -> str:
        """Return what tells it from other decisions."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


class Forgiving(Protocol):
    """A defense, as far as it is needed here."""

    def pardon(self, client: str) -> str:
        """Forget what is held against a client, and say what that was."""
        ...


def decide(
    folder: Path, kind: Literal["pardon", "rekey"], client: str, reason: str, node: str = ""
) -> Decision:
    """Write a decision down; it is on disk when this returns.

    Parameters
    ----------
    folder
        The state folder.
    kind, client, node
        See `Decision`.
    reason
        In the operator's words.

    Raises
    ------
    ConfigError
        If there is no reason, or it is longer than `LONGEST`, or has several lines.
    CannotWrite
        If the folder cannot be written.
    """
    reason = reason.strip()
    if not reason or len(reason) > LONGEST or not reason.isprintable():
        raise ConfigError(
            f"a reason of {len(reason)} letters: allowed is one line of 1 to {LONGEST} printable "
            "letters."
        )
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    decision = Decision(kind, client, reason, now, _who(), node)
    path = folder / FILE
    whole = content(path)
    # A line that a full disk has cut off would swallow this one.
    start = "\n" if whole and not whole.endswith(b"\n") else ""
    with writing(path), open_own(path, "a", encoding="utf-8") as file:
        file.write(f"{start}{json.dumps(asdict(decision))}\n")
        file.flush()
        os.fsync(file.fileno())
    return decision


def _who() -> str:
    try:
        login = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        login = str(os.getuid())
    return f"{login} on {platform.node()}"


def read(folder: Path | None) -> tuple[list[Decision], list[int]]:
    """Return the decisions of a state folder, and the numbers of lines that are none.

    Raises
    ------
    ConfigError
        If there is something in the file's place that cannot be read.
    """
    if folder is None:
        return [], []
    found: list[Decision] = []
    damaged: list[int] = []
    for number, line in enumerate(content(folder / FILE).splitlines(), start=1):
        decision = _decision(line)
        if decision is not None:
            found.append(decision)
        elif line.strip():
            damaged.append(number)
    return found, damaged


def _decision(line: bytes) -> Decision | None:
    try:
        values = mapping(parse_json(line))
    except ValueError:
        return None
    names = ("kind", "client", "reason", "time", "by", "node")
    texts = {name: value for name in names if isinstance(value := values.get(name), str)}
    if set(names) - {"node"} - set(texts) or texts["kind"] not in ("pardon", "rekey"):
        return None
    ids = [texts["client"], *([texts.get("node", "")] if texts["kind"] == "rekey" else [])]
    if not all(map(is_node, ids)):
        return None
    return Decision(**cast("Any", texts))


def is_node(text: str) -> bool:
    """Whether a text is the id of a node as Flower writes it: up to 64 bits, above 0."""
    short = text.isascii() and text.isdecimal() and len(text) <= len(str(_MOST))
    return short and str(int(text)) == text and 0 < int(text) <= _MOST


_MOST = 2**64 - 1


class Decisions:
    """What of a state folder's decisions has been carried out, and what that came to."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._done: list[str] = []
        self._nodes: dict[str, list[str]] = {}
        """The nodes that a client has been after its first one, by client; the last one counts."""
        self._warned: set[int] = set()

    def carry_out(self, server: Forgiving) -> tuple[dict[str, str], ...]:
        """Carry out what is new, and return it, with what was `forgotten`.

        Nothing that is wrong with the file ends a round: lines that are no decisions are named
        once in the log and passed over.
        """
        try:
            decisions, damaged = read(self.folder)
        except ConfigError as error:
            log.warning("%s", error)
            return ()
        for number in damaged:
            if number not in self._warned:
                self._warned.add(number)
                log.warning("%s, line %d: is no decision, and passed over", FILE, number)
        return tuple(
            self._carry_out(decision, server)
            for decision in decisions
            if decision.identity not in self._done
        )

    def _carry_out(self, decision: Decision, server: Forgiving) -> dict[str, str]:
        self._done.append(decision.identity)
        line = {name: value for name, value in asdict(decision).items() if value}
        if decision.kind == "rekey":
            self._nodes.setdefault(decision.client, []).append(decision.node)
            log.info("node %s is node %s now: %s", decision.client, decision.node, decision.reason)
            return line
        forgotten = server.pardon(decision.client)
        log.info(
            "node %s is pardoned (%s): %s",
            *(decision.client, forgotten or "nothing was held against it", decision.reason),
        )
        return line | {"forgotten": forgotten}

    def clients(self, nodes: Iterable[int]) -> dict[int, int]:
        """Return nodes by the client that each of them is; nodes with a replaced key are none.

        Examples
        --------
        >>> decisions = Decisions(None)
        >>> decisions.load_state_dict({"done": [], "nodes": {"7": ["12"]}})
        >>> decisions.clients([7, 8, 12])
        {8: 8, 7: 12}
        """
        last = {int(client): int(known[-1]) for client, known in self._nodes.items()}
        of = {int(node): int(client) for client, known in self._nodes.items() for node in known}
        found: dict[int, int] = {}
        for node in nodes:
            client = of.get(node, node)
            if last.get(client, node) == node:
                found[client] = node
        return found

    def state_dict(self) -> dict[str, Any]:
        """Return what has been carried out; empty before the first decision."""
        return {"done": list(self._done), "nodes": dict(self._nodes)} if self._done else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what `state_dict` returned."""
        self._done = list(state.get("done", ()))
        self._nodes = {client: list(nodes) for client, nodes in state.get("nodes", {}).items()}


def client_of(decisions: Sequence[Decision], node: str) -> str:
    """Return the client that a node is after all decisions; its own id if it is no other one."""
    for decision in reversed(decisions):
        if decision.kind == "rekey" and decision.node == node:
            return decision.client
    return node
