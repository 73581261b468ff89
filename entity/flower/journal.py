"""What a server keeps on disk, so that a restart loses nothing and pardons nobody.

The folder has the simulator's checkpoints (`checkpoint/`, safetensors and JSON, written aside and
renamed) and `rounds.jsonl`, a line for every round with the verdict on every node.
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

    def take_up(self, origin: Mapping[str, Any]) -> Snapshot | None:
        """Return where the folder's federation stands; None if it has none, and begins one.

        Parameters
        ----------
        origin
            What the federation is: defense, settings and model, as JSON has it.

        Raises
        ------
        ConfigError
            If the folder holds another one.
        """
        if self.folder is None:
            return None
        self._checkpoints = Checkpoints(self.folder, origin, every=1)
        lines = whole_lines(self.folder)
        found = self._checkpoints.last(len(lines))
        if found is None and len(lines) > 1:  # one may have been cut off before its checkpoint
            raise ConfigError(
                f"{self.folder}: holds {len(lines)} rounds but no whole checkpoint; move it away "
                "to begin anew."
            )
        if found is not None:
            before, now = found.origin, json.loads(json.dumps(origin))
            for name in now:
                if before.get(name) != now[name]:
                    raise ConfigError(
                        f"{self.folder}: holds a federation with another {name}; give it that "
                        "one, or choose another folder."
                    )
        kept = None if found is None else found.snapshot
        self._record = Record(self.folder, origin, keep=kept.round if kept else 0)
        return kept

    def keep(self, line: Mapping[str, Any], snapshot: Snapshot) -> None:
        """Write a finished round; when this returns it is on disk."""
        self._record.append(dict(line), {})
        self._checkpoints.take(snapshot)
