"""Local training in worker processes that live as long as the experiment.

Each worker has one thread, which on a CPU beats one process with many. Weights pass through
shared memory: a round moves no model through a pipe. A worker that dies is replaced and its
client is tried once more; should that fail too, the client's row is NaN, which the server's gate
refuses, and the round goes on.
"""

import contextlib
import signal
import traceback
from collections.abc import Generator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any, cast

import torch
from torch import Tensor, multiprocessing

from entity.client import Broadcast
from entity.client.poison import Memory
from entity.engine.allocator import keep_pages
from entity.engine.local_training import Workbench
from entity.engine.schedule import Turn, Turns
from entity.engine.worker_engine import Crew
from entity.layout import ModelState
from entity.setup.roster import Roster


@dataclass(frozen=True)
class _Board:
    """The memory that parent and workers share."""

    sent: ModelState
    previous: Tensor
    weights: Tensor
    buffers: Tensor


@dataclass(frozen=True)
class _Task:
    """What a worker is sent; all else lies on the board."""

    round: int
    client: int
    slot: int
    """Row of the board's matrices for the model."""
    has_previous: bool
    memory: dict[str, Tensor]
    trigger: Memory


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    turn: Turn | None = None


class Pool(Crew):
    """Persistent worker processes, one thread each."""

    def __init__(self, roster: Roster, workers: int) -> None:
        super().__init__(roster, workers)
        spec = roster.spec
        self._board = _Board(
            ModelState(
                torch.zeros(spec.num_parameters).share_memory_(),
                torch.zeros(spec.num_buffers).share_memory_(),
            ),
            torch.zeros(spec.num_parameters).share_memory_(),
            self.weights.share_memory_(),
            self.buffers.share_memory_(),
        )
        roster.images.share_memory()
        roster.shares.share_memory()
        rows = roster.config.federation.round_size
        self._workers = [self._start() for _ in range(min(workers, rows))]

    def run(self, broadcast: Broadcast, turns: Turns) -> None:
        """Send the workers their tasks over pipes, and the models through shared memory."""
        board = self._board
        board.sent.weights.copy_(broadcast.state.weights)
        board.sent.buffers.copy_(broadcast.state.buffers)
        if broadcast.previous is not None:
            board.previous.copy_(broadcast.previous)
        while not turns.over:
            for worker in self._workers:
                if worker.turn is None and (turn := turns.take()) is not None:
                    worker.turn = turn
                    with contextlib.suppress(BrokenPipeError):  # found dead just below
                        worker.pipe.send(self._task(broadcast, turn))
            busy = [worker for worker in self._workers if worker.turn]
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
            for worker in busy:
                assert worker.turn is not None
                if worker.pipe in ready and (answer := _receive(worker.pipe)) is not None:
                    turns.book(worker.turn, answer)
                    worker.turn = None
                elif worker.pipe in ready or worker.process.sentinel in ready:
                    turn, code = worker.turn, self._replace(worker)
                    turns.lost(turn, "worker", f"exit {code}", self.spoil)

    def _task(self, broadcast: Broadcast, turn: Turn) -> _Task:
        return _Task(
            broadcast.round,
            turn.client,
            turn.row % self.slots,
            broadcast.previous is not None,
            self.memory.get(turn.client, {}),
            broadcast.trigger,
        )

    def _replace(self, worker: _Worker) -> int | None:
        """Start a worker in place of a dead one, and return the dead one's exit code."""
        worker.process.join()
        code = worker.process.exitcode
        fresh = self._start()
        worker.process, worker.pipe, worker.turn = fresh.process, fresh.pipe, None
        return code

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(self.roster, self._board, theirs), daemon=True
        )
        with _no_interrupts():
            process.start()
        theirs.close()
        return _Worker(process, cast("Connection[Any, Any]", ours))

    def close(self) -> None:
        """End the workers, whatever they do; one that still imports would keep us waiting."""
        for worker in self._workers:
            worker.pipe.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _receive(pipe: "Connection[Any, Any]") -> "dict[str, Tensor] | str | None":
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _work(roster: Roster, board: _Board, pipe: "Connection[Any, Any]") -> None:
    torch.set_num_threads(1)
    keep_pages()
    bench = Workbench(roster)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            task: _Task = pipe.recv()
            broadcast = Broadcast(
                task.round,
                board.sent,
                board.previous if task.has_previous else None,
                task.trigger,
            )
            out = ModelState(board.weights[task.slot], board.buffers[task.slot])
            try:
                answer = bench.train(broadcast, task.client, out, task.memory)
            except Exception:
                answer = traceback.format_exc()
            pipe.send(answer)


@contextlib.contextmanager
def _no_interrupts() -> Generator[None]:
    """Start processes that never see Ctrl-C, not even while they import: it is the parent's."""
    resource_tracker.ensure_running()  # the first start would, and unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
