"""In what state a run is: by its summary, its lock, and what a sweep has left beside them."""

from pathlib import Path
from typing import Literal

from entity.record.directory import ERROR
from entity.record.lock import is_locked

State = Literal["running", "finished", "interrupted", "failed", "killed"]


def state_of(folder: Path, written: str) -> State:
    """Say whether a process is at work on a run, or else how it ended.

    Parameters
    ----------
    folder
        The run directory.
    written
        The state in its summary, "" for none: a process that was killed has left `running` there.
    """
    if written == "finished":
        return "finished"
    alive = is_locked(folder)
    if alive is None:
        alive = written != "interrupted"  # no locks here; trust the summary
    if alive:
        return "running"
    if (folder / ERROR).is_file():
        return "failed"
    return "interrupted" if written == "interrupted" else "killed"
