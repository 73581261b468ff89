"""What one case came to, and what all cases of a figure add up to."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

ENOUGH = 40
"""Cases from which on shares are judged: fewer are the repetition of a failure, or a test."""


class Case(NamedTuple):
    """One case."""

    counts: Counter[str]
    """What happened, by name."""
    failure: str = ""
    """Why it failed, in a line; empty if it did not."""


class Figure(Protocol):
    """One robustness figure."""

    in_process: bool
    """Whether a case runs in the process that asks for it, instead of starting its own."""

    def case(self, seed: int) -> Case:
        """Try the case of a seed."""
        ...

    def shortfall(self, tally: "Tally") -> str:
        """Say why cases that did not fail prove nothing all the same; empty if they do."""
        ...


@dataclass
class Tally:
    """All cases of a figure so far."""

    cases: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(seed, reason)."""

    def add(self, seed: int, case: Case) -> None:
        """Add the case of a seed."""
        self.cases += 1
        self.counts += case.counts
        if case.failure:
            self.failures.append((seed, case.failure))

    def share(self, name: str) -> float:
        """Return how often something happened, for each case."""
        return self.counts[name] / self.cases if self.cases else 0.0

    def __str__(self) -> str:
        """Return the line of a figure."""
        counts = [f"{count} {name}" for name, count in sorted(self.counts.items())]
        return ", ".join([f"{self.cases} cases", *counts, f"{len(self.failures)} failed"])
