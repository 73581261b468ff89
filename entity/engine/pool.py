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
from entity.client.poison import TriggerMemory
from entity.engine.allocator import keep_pages
from entity.engine.contract import ClientMemory
from entity.engine.local_training import LocalTrainer
from entity.engine.schedule import Schedule, Task
from entity.engine.worker_engine import WorkerEngine
from entity.layout import ModelState
from entity.setup.roster import Roster


@dataclass(frozen=True)
class _SharedModels:
    """The models that lie in memory which parent and workers share."""

    sent: ModelState
    previous: Tensor
    weights: Tensor
    buffers: Tensor


@dataclass(frozen=True)
class _Request:
    """What a worker is sent; the models lie in shared memory."""

    round: int
    client: int
    row: int
    """Row of the shared matrix that the model is written into."""
    has_previous: bool
    memory: ClientMemory
    trigger: TriggerMemory


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    task: Task | None = None


class Pool(WorkerEngine):
    """Persistent worker processes, one thread each."""

    def __init__(self, roster: Roster, workers: int) -> None:
        super().__init__(roster, workers)
        spec = roster.spec
        self._shared = _SharedModels(
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

    @property
    def processes(self) -> list[SpawnProcess]:
        """The worker processes."""
        return [worker.process for worker in self._workers]

    def carry_out(self, broadcast: Broadcast, schedule: Schedule) -> None:
        """Send the workers their tasks over pipes, and the models through shared memory."""
        shared = self._shared
        shared.sent.weights.copy_(broadcast.state.weights)
        shared.sent.buffers.copy_(broadcast.state.buffers)
        if broadcast.previous is not None:
            shared.previous.copy_(broadcast.previous)
        while not schedule.done:
            for worker in self._workers:
                if worker.task is None and (task := schedule.take()) is not None:
                    worker.task = task
                    with contextlib.suppress(BrokenPipeError):  # seen to be dead just below
                        worker.pipe.send(self._request(broadcast, task))
            busy = [worker for worker in self._workers if worker.task]
            ready = wait([w.pipe for w in busy] + [w.process.sentinel for w in busy])
            for worker in busy:
                assert worker.task is not None
                if worker.pipe in ready and (answer := _receive(worker.pipe)) is not None:
                    schedule.complete(worker.task, answer)
                    worker.task = None
                elif worker.pipe in ready or worker.process.sentinel in ready:
                    task, code = worker.task, self._replace(worker)
                    schedule.lost(task, "worker", f"exit {code}", self.invalidate)

    def _request(self, broadcast: Broadcast, task: Task) -> _Request:
        return _Request(
            broadcast.round,
            task.client,
            task.row % self.rows,
            broadcast.previous is not None,
            self.memory.get(task.client, {}),
            broadcast.trigger,
        )

    def _replace(self, worker: _Worker) -> int | None:
        """Start a worker in place of a dead one, and return the dead one's exit code."""
        worker.process.join()
        code = worker.process.exitcode
        fresh = self._start()
        worker.process, worker.pipe, worker.task = fresh.process, fresh.pipe, None
        return code

    def _start(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=_work, args=(self.roster, self._shared, theirs), daemon=True
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


def _work(roster: Roster, shared: _SharedModels, pipe: "Connection[Any, Any]") -> None:
    torch.set_num_threads(1)
    keep_pages()
    trainer = LocalTrainer(roster)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            request: _Request = pipe.recv()
            broadcast = Broadcast(
                request.round,
                shared.sent,
                shared.previous if request.has_previous else None,
                request.trigger,
            )
            out = ModelState(shared.weights[request.row], shared.buffers[request.row])
            try:
                answer = trainer.train(broadcast, request.client, out, request.memory)
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
