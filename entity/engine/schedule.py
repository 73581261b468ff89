"""Who trains next in a round, and what becomes of a client whose worker is lost.

What the pool and Ray have in common: they differ in how a worker is reached, not in this.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

log = logging.getLogger("entity")

Memory = dict[str, Tensor]
"""What a client keeps from round to round."""


@dataclass(frozen=True)
class Turn:
    """One client's training in one round."""

    row: int
    """Its place in the round."""
    client: int


class Turns:
    """The turns of a round: handed out, booked, or lost and tried once more.

    Parameters
    ----------
    client_ids
        Who trains, in the order of the round's rows.
    order
        The rows, in the order in which they begin.
    memory
        The engine's; what a client answers is put there.
    deliver
        Called with each row in turn, from 0 up, as soon as all rows before it are done, too.
    window
        Rows that may be begun, but not delivered: where there are fewer places to put a model
        than clients. It takes rows that begin in their order. Null sets no bound.

    Examples
    --------
    >>> turns = Turns((7, 3), [1, 0], {})
    >>> first = turns.take()
    >>> first
    Turn(row=1, client=3)
    >>> turns.book(first, {})
    >>> turns.over
    False
    """

    def __init__(
        self,
        client_ids: Sequence[int],
        order: Sequence[int],
        memory: dict[int, Memory],
        deliver: Callable[[int], None] = lambda row: None,
        window: int | None = None,
    ) -> None:
        self._waiting = [Turn(row, client_ids[row]) for row in reversed(order)]
        self._memory = memory
        self._deliver = deliver
        self._rows = len(client_ids)
        self._window = self._rows if window is None else window
        self._tried: set[int] = set()
        self._done: set[int] = set()
        self._delivered = 0

    @property
    def over(self) -> bool:
        """Whether all clients are done."""
        return self._delivered == self._rows

    def take(self) -> Turn | None:
        """Return whose turn it is; null if nobody waits, or there is no place for a model."""
        if not self._waiting or self._waiting[-1].row >= self._delivered + self._window:
            return None
        return self._waiting.pop()

    def book(self, turn: Turn, answer: Memory | str) -> None:
        """Take in a worker's answer: what the client remembers, or the traceback of its error.

        Raises
        ------
        RuntimeError
            If the client failed.
        """
        if isinstance(answer, str):
            raise RuntimeError(f"client {turn.client} failed in a worker:\n{answer}")
        if answer:
            self._memory[turn.client] = answer
        self._finish(turn)

    def lost(self, turn: Turn, worker: str, why: str, spoil: Callable[[int], None]) -> None:
        """Let a client whose worker died try once more, and only once.

        The second time it is this client that fails, not the round: `spoil` fills its row with
        NaN, which the server's gate refuses.
        """
        if turn.row in self._tried:
            log.warning("client %s: its %s died again (%s); refused", turn.client, worker, why)
            spoil(turn.row)
            self._finish(turn)
            return
        log.warning("client %s: its %s died (%s); trying once more", turn.client, worker, why)
        self._tried.add(turn.row)
        self._waiting.append(turn)

    def _finish(self, turn: Turn) -> None:
        self._done.add(turn.row)
        while self._delivered in self._done:
            self._deliver(self._delivered)
            self._delivered += 1


def largest_first(sizes: Tensor) -> list[int]:
    """Return the rows of a round (n,), those with the most samples first: they take longest.

    Examples
    --------
    >>> import torch
    >>> largest_first(torch.tensor([5, 9, 5]))
    [1, 2, 0]
    """
    return sizes.argsort(stable=True).flip(0).tolist()
