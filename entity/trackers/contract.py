"""What a tracker is given, and what it does with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class Session:
    """The run that a tracker follows."""

    folder: Path
    """Its run directory."""
    id: str
    """What the tracker calls it, the same after a resume; letters and digits."""
    name: str
    project: str
    """What runs are gathered under: the data set."""
    config: Mapping[str, object]
    """Every field of the configuration, by dotted path."""
    logged: int
    """Rounds that this tracker has been told of before; not 0 after a resume."""

    @property
    def own(self) -> Path:
        """Return where trackers leave what belongs to this run."""
        return self.folder / "trackers"


class Tracker(Protocol):
    """An adapter; it is built with the session, in a process that is its own."""

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Take in the numbers of a round (shares from 0 to 1, seconds), by names such as `mta`."""
        ...

    def finish(self, state: str, summary: Mapping[str, float]) -> None:
        """Take in what the run came to, and put everything away.

        `state` is finished, interrupted, or running for one that was killed.
        """
        ...
