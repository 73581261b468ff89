"""What the sweep needs of the place where its cells run: this machine, or a cluster."""

from collections.abc import Sequence
from typing import Any, Protocol

from entity.sweep.cells import Cell


class Attempt(Protocol):
    """One attempt at a cell, while it runs."""

    @property
    def cell(self) -> Cell:
        """What runs."""
        ...

    @property
    def resume(self) -> bool:
        """Whether it goes on with what its folder holds."""
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
        """Return the exit code of one that is over, of which the run directory says why."""
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
        """Return those that are over, after some time at the latest."""
        ...

    def stop(self, running: Sequence[Any]) -> None:
        """End attempts so that each puts its run away."""
        ...
