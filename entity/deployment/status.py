"""What a strategy is doing right now, as `status.json` in its state folder.

`rounds.jsonl` tells of rounds that are over. While one goes on, an operator asks whether it waits
for nodes, for replies or for the defense. The file is replaced whole, at most once a second while
replies come in.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from entity.record.json_files import write_json

log = logging.getLogger("entity")

FILE = "status.json"

WAITING, TRAINING, AGGREGATING, EVALUATING = "waiting", "training", "aggregating", "evaluating"
FINISHED, FAILED = "finished", "failed"
"""Stages: waiting for nodes, then for their replies; the defense; the judge; and how it ends."""

PAUSE = 1.0
"""Least seconds between two writings while replies come in."""

Reply = TypeVar("Reply")


class Status:
    """Writer of `status.json`; without a folder it writes nothing.

    Parameters
    ----------
    folder
        The state folder.
    clock
        Seconds since 1970.
    """

    def __init__(self, folder: Path | None, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self.clock = clock
        self._facts: dict[str, Any] = {}
        self._written = 0.0
        self._warned = False

    def begin(self, **facts: Any) -> None:
        """Keep what holds for the whole run."""
        self._facts = dict(facts)

    def stage(self, stage: str, round: int, **facts: Any) -> None:
        """Say what is done now.

        Parameters
        ----------
        stage
            One of the names above.
        round
            Number of the round.
        facts
            Numbers that belong to the stage.
        """
        now = self.clock()
        if self._facts.get("stage") != stage or self._facts.get("round") != round:
            self._facts["since"] = now
        self._facts |= {"stage": stage, "round": round, **facts}
        self._write(now)

    def counted(self, replies: Iterable[Reply]) -> Iterator[Reply]:
        """Count the replies of a round as they are taken."""
        for number, reply in enumerate(replies, start=1):
            yield reply
            self._facts["replies"] = number
            if self.clock() - self._written >= PAUSE:
                self._write(self.clock())

    def _write(self, now: float) -> None:
        """Write the file; what is only for looking at ends no round."""
        if self.folder is None:
            return
        self._written = now
        try:
            write_json(self.folder / FILE, self._facts)
        except OSError as error:
            if not self._warned:
                self._warned = True
                log.warning("%s cannot be written (%s)", self.folder / FILE, error.strerror)
