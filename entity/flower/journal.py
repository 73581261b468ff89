"""The state of a server on disk, so that a restart loses nothing and forgets no refusal.

The folder has the simulator's checkpoints (`checkpoint/`, safetensors and JSON, written
atomically) and `rounds.jsonl`, a line for every round with the verdict on every node.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from entity.config.schema import ConfigError
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.directory import Record
from entity.record.rounds import whole_lines


class Journal:
    """The state folder of one federation; with `folder` None it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._checkpoints = Checkpoints(None, {}, 1)
        self._record = Record(None, {})

    def resume(self, origin: Mapping[str, Any]) -> Snapshot | None:
        """Return the last state of the federation in the folder; None if a new one begins.

        Parameters
        ----------
        origin
            Identifies the federation: defense, settings and model, as JSON has it.

        Raises
        ------
        ConfigError
            If the folder holds another federation, or rounds without an intact checkpoint.
        """
        if self.folder is None:
            return None
        self._checkpoints = Checkpoints(self.folder, origin, every=1)
        lines = whole_lines(self.folder)
        checkpoint = self._checkpoints.last(len(lines))
        if checkpoint is None and len(lines) > 1:  # one may have been cut off before its checkpoint
            raise ConfigError(
                f"{self.folder}: holds {len(lines)} rounds but no whole checkpoint; move it away "
                "to begin anew."
            )
        if checkpoint is not None:
            before, now = checkpoint.origin, json.loads(json.dumps(origin))
            for name in now:
                if before.get(name) != now[name]:
                    raise ConfigError(
                        f"{self.folder}: holds a federation with another {name}; give it that "
                        "one, or choose another folder."
                    )
        state = None if checkpoint is None else checkpoint.snapshot
        self._record = Record(self.folder, origin, keep=state.round if state else 0)
        return state

    def keep(self, line: Mapping[str, Any], snapshot: Snapshot) -> None:
        """Write a finished round; it is on disk when this returns.

        Parameters
        ----------
        line
            The round's line of `rounds.jsonl`.
        snapshot
            The state after it.
        """
        self._record.append(dict(line), {})
        self._checkpoints.take(snapshot)
