"""The state of a server on disk, so that a restart loses nothing and forgets no refusal.

The folder has the simulator's checkpoints (`checkpoint/`, safetensors and JSON, written
atomically) and `rounds.jsonl`, a line for every round with the verdict on every node. What was
played is what the checkpoints say: they hold the penalties. A `rounds.jsonl` that ends before them
is rebuilt, with `"lost": true` in the lines of rounds that nothing tells of any more.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from entity.config.schema import ConfigError
from entity.record.atomic import write_atomically, writing
from entity.record.checkpoint import FOLDER as CHECKPOINTS
from entity.record.checkpoint import Checkpoint, Checkpoints, Snapshot
from entity.record.directory import Record
from entity.record.follow import Tail
from entity.record.json_files import read_object
from entity.record.lock import InUse, locked
from entity.record.rounds import content, readable_lines, whole_lines

log = logging.getLogger("entity")

DAMAGED = "rounds.damaged.jsonl"
"""What was left of `rounds.jsonl` before it was rebuilt."""

_AHEAD = 2
"""Rounds by which lines may be ahead of the last whole checkpoint: one that was cut off before its
checkpoint was written, and one whose checkpoint is damaged."""


class Journal:
    """The state folder of one federation; with `folder` None it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._checkpoints = Checkpoints(None, {}, 1)
        self._record = Record(None, {})

    @property
    def rounds(self) -> Iterable[dict[str, Any]]:
        """Read the lines of the rounds so far."""
        return () if self.folder is None else Tail(self.folder)

    def check(self) -> None:
        """Make the folder, unless it is there, and see that state can be written in it.

        Raises
        ------
        ConfigError
            If it cannot.
        """
        if self.folder is None:
            return
        for path in (self.folder, self.folder / CHECKPOINTS):
            if path.exists() and not path.is_dir():
                raise ConfigError(f"{path}: is a file; allowed is a folder.")
        with suppress(InUse), locked(self.folder):  # whoever is at work there may be done by then
            pass

    def resume(self, origin: Mapping[str, Any]) -> Snapshot | None:
        """Return the last state of the federation in the folder; None if a new one begins.

        Parameters
        ----------
        origin
            Identifies the federation: defense, settings and model, as JSON has it.

        Raises
        ------
        ConfigError
            If the folder holds another federation, rounds without an intact checkpoint, or a
            configuration of something else.
        """
        if self.folder is None:
            return None
        self._checkpoints = Checkpoints(self.folder, origin, every=1)
        checkpoint = self._checkpoints.last()
        if checkpoint is None:
            self._refuse_played(self.folder)
            _refuse_foreign(self.folder)
        else:
            _refuse_other(self.folder, checkpoint, origin)
            _refuse_older(self.folder, checkpoint.snapshot.round)
            _rebuild(self.folder, checkpoint.snapshot.round)
        state = None if checkpoint is None else checkpoint.snapshot
        kept = state.round if state else 0
        self._record = Record(self.folder, origin, keep=kept, of_run=False)
        return state

    def _refuse_played(self, folder: Path) -> None:
        """Refuse a folder in which anything shows that its penalties are lost."""
        lines = readable_lines(folder / "rounds.jsonl")
        # A first round that was cut off before its checkpoint was written has penalised nobody.
        shown = max([0, *lines, *self._checkpoints.numbers()])
        if shown > 1 or self._checkpoints.sealed():
            raise ConfigError(
                f"{folder}: holds {shown} rounds but no whole checkpoint; move it away "
                "to begin anew."
            )

    def keep(self, line: Mapping[str, Any], snapshot: Snapshot) -> None:
        """Write a finished round; it is on disk when this returns.

        Parameters
        ----------
        line
            The round's line of `rounds.jsonl`.
        snapshot
            The state after it.

        Raises
        ------
        DiskFull
            If it cannot be written.
        """
        with writing(self.folder or Path(), begun=True):
            self._record.append(dict(line), {})
            self._checkpoints.take(snapshot)


def _refuse_foreign(folder: Path) -> None:
    """Refuse a folder of something else, whose configuration would be replaced."""
    path = folder / "config.json"
    if path.exists() and "defense" not in read_object(path):
        raise ConfigError(
            f"{folder}: its config.json is of no federation, and would be replaced; choose another "
            "folder."
        )


def _refuse_other(folder: Path, checkpoint: Checkpoint, origin: Mapping[str, Any]) -> None:
    before, now = checkpoint.origin, json.loads(json.dumps(origin))
    for name in {**now, **before}:
        if before.get(name) != now.get(name):
            raise ConfigError(
                f"{folder}: holds a federation with another {name}; give it that "
                "one, or choose another folder."
            )


def _refuse_older(folder: Path, round: int) -> None:
    """Refuse checkpoints that later rounds have left behind, and their penalties with them."""
    last = max([0, *readable_lines(folder / "rounds.jsonl")])
    if last > round + _AHEAD:
        raise ConfigError(
            f"{folder}: rounds.jsonl has {last} rounds, and the last whole checkpoint is of round "
            f"{round}; put later ones back, or move the folder away to begin anew."
        )


def _rebuild(folder: Path, rounds: int) -> None:
    """Complete a `rounds.jsonl` that has fewer whole lines than rounds were played."""
    path = folder / "rounds.jsonl"
    whole = len(whole_lines(folder))
    if whole >= rounds:
        return
    log.warning(
        "%s has %d whole lines, and is shorter than the checkpoints: going on after round %d; "
        "lines that are lost say so",
        *(path, whole, rounds),
    )
    left = readable_lines(path)
    if before := content(path):
        write_atomically(path.with_name(DAMAGED), before)
    write_atomically(path, b"".join(left.get(n, _lost(n)) for n in range(1, rounds + 1)))


def _lost(number: int) -> bytes:
    line = {"round": number, "verdicts": [], "aggregated": None, "lost": True}
    return json.dumps(line).encode() + b"\n"
