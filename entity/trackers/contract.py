"""The interface of a tracker, and the session it is built with."""

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
    """The run's id in the tracker, the same after a resume; letters and digits."""
    name: str
    project: str
    """The data set; runs of one are shown together."""
    config: Mapping[str, object]
    """Every field of the configuration, by dotted path."""
    logged: int
    """Rounds that this tracker has logged before; not 0 after a resume."""

    @property
    def own(self) -> Path:
        """Return the folder for the trackers' files of this run."""
        return self.folder / "trackers"


class Tracker(Protocol):
    """An adapter; it is built with the session, in a process of its own."""

    def log(self, number: int, values: Mapping[str, float]) -> None:
        """Log the numbers of a round (shares from 0 to 1, seconds), by names such as `mta`."""
        ...

    def finish(self, state: str, summary: Mapping[str, float]) -> None:
        """Log the summary of the run, and close everything.

        `state` is finished, interrupted, or running for one that was killed.
        """
        ...
