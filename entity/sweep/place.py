"""A place where cells run, as the sweep sees it: this machine, or a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

from entity.sweep.cells import Cell


class Attempt(Protocol):
    """One attempt at a cell, while it runs."""

    @property
    def cell(self) -> Cell:
        """The cell that runs."""
        ...

    @property
    def resume(self) -> bool:
        """Whether it resumes the run in its folder."""
        ...

    @property
    def round(self) -> int:
        """The last round that it has finished."""
        ...

    @property
    def rounds_run(self) -> int:
        """How many it has finished itself."""
        ...

    @property
    def seconds(self) -> float:
        """Seconds since its start."""
        ...

    def end(self) -> int:
        """Return the exit code of an attempt that is over; its run directory says why."""
        ...


class Place(Protocol):
    """Where cells run, each in a process of its own."""

    jobs: int
    """How many at a time."""

    def start(self, cell: Cell, *, resume: bool) -> Attempt:
        """Begin an attempt.

        Raises
        ------
        OSError
            If its run directory cannot be written.
        """
        ...

    def over(self, running: Sequence[Any], seconds: float) -> Sequence[Attempt]:
        """Wait for some seconds at most, and return the attempts that are over."""
        ...

    def stop(self, running: Sequence[Any]) -> None:
        """End attempts so that each saves its run."""
        ...
