"""Who trains next in a round, and what happens to a client whose worker is lost.

The pool and Ray share this; they differ in how a worker is reached.
"""

import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from entity.config.schema import ConfigError
from entity.engine.contract import ClientMemory
from entity.setup.plugin_files import refusal

log = logging.getLogger("entity")


Fault = ConfigError | str
"""Why a worker could not train a client: a sentence for the user, or a traceback."""


def fault_of(error: BaseException) -> Fault:
    """Return what a worker says of an error while it is being handled.

    A sentence about a plugin has the traceback as a note, for a program that shows errors whole.
    """
    refused = refusal(error)
    if refused is None:
        return traceback.format_exc()
    if not isinstance(error, ConfigError):
        refused.add_note(traceback.format_exc())
    return refused


@dataclass(frozen=True)
class Task:
    """One client's training in one round."""

    row: int
    """Its position in the round."""
    client: int


class Schedule:
    """The tasks of a round: handed out, completed, or lost and tried once more.

    Parameters
    ----------
    client_ids
        Who trains, in the order of the round's rows.
    order
        The rows, in the order in which they begin.
    memory
        The engine's; a client's answer is stored there.
    deliver
        Called with each row, from 0 up, as soon as it and all rows before it are completed; not
        with those of clients that were lost.
    window
        Rows that may be begun, but not delivered: where a matrix has fewer rows than the round.
        A window smaller than the round needs rows that begin in their order. None sets no bound.

    Examples
    --------
    >>> schedule = Schedule((7, 3), [1, 0], {})
    >>> first = schedule.take()
    >>> first
    Task(row=1, client=3)
    >>> schedule.complete(first, {})
    >>> schedule.done
    False
    """

    def __init__(
        self,
        client_ids: Sequence[int],
        order: Sequence[int],
        memory: dict[int, ClientMemory],
        deliver: Callable[[int], None] = lambda row: None,
        window: int | None = None,
    ) -> None:
        self._waiting = [Task(row, client_ids[row]) for row in reversed(order)]
        self._memory = memory
        self._deliver = deliver
        self._rows = len(client_ids)
        self._window = self._rows if window is None else window
        self._retried: set[int] = set()
        self._completed: set[int] = set()
        self._lost: set[int] = set()
        self._delivered = 0

    @property
    def done(self) -> bool:
        """Whether all clients are done."""
        return self._delivered == self._rows

    @property
    def all_lost(self) -> bool:
        """Whether no client has a model."""
        return len(self._lost) == self._rows

    def take(self) -> Task | None:
        """Return the next task; None if none is waiting, or its row of the matrix is in use."""
        if not self._waiting or self._waiting[-1].row >= self._delivered + self._window:
            return None
        return self._waiting.pop()

    def complete(self, task: Task, answer: ClientMemory | Fault) -> None:
        """Record a worker's answer: the client's memory, or its error.

        Raises
        ------
        ConfigError
            If what a configuration names has failed.
        RuntimeError
            If the client failed.
        """
        if isinstance(answer, ConfigError):
            raise answer
        if isinstance(answer, str):
            raise RuntimeError(f"client {task.client} failed in a worker:\n{answer}")
        if answer:
            self._memory[task.client] = answer
        self._finish(task)

    def lost(self, task: Task, worker: str, why: str) -> None:
        """Let a client whose worker died try once more, and only once.

        The second time it is this client that is missing from the round, as one is whose
        connection is lost; nobody has judged it.

        Parameters
        ----------
        task
            What the worker was doing.
        worker, why
            The kind of worker and the circumstances, for the log.
        """
        if task.row in self._retried:
            log.warning(
                "client %s: its %s died again (%s); it is missing from this round",
                *(task.client, worker, why),
            )
            self._lost.add(task.row)
            self._finish(task)
            return
        log.warning("client %s: its %s died (%s); trying once more", task.client, worker, why)
        self._retried.add(task.row)
        self._waiting.append(task)

    def _finish(self, task: Task) -> None:
        self._completed.add(task.row)
        while self._delivered in self._completed:
            if self._delivered not in self._lost:
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
