"""Local training in worker processes that live as long as the experiment.

Each worker has one thread, which on a CPU beats one process with many. Weights pass through
shared memory: a round moves no model through a pipe. A worker that dies at work is replaced and
its client is tried once more; should that fail too, the client is missing from the round. One that
dies before it could begin is not replaced.
"""

import contextlib
import logging
import signal
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Self, cast

import torch
from numpy.typing import NDArray
from torch import Tensor, multiprocessing

from entity.client import Broadcast
from entity.engine.allocator import keep_pages
from entity.engine.contract import NoWorkers
from entity.engine.local_training import LocalTrainer
from entity.engine.main_module import GUARD
from entity.engine.schedule import Fault, Schedule, Task, fault_of
from entity.engine.worker_engine import WorkerEngine
from entity.layout import ModelState
from entity.setup.roster import Roster

log = logging.getLogger("entity")

_READY = "ready"
"""What a worker says before its first task."""

_SHM = Path("/dev/shm")


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
    memory: "_Arrays"
    trigger: "_Arrays"


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: "Connection[Any, Any]"
    task: Task | None = None
    ready: bool = False


class Pool(WorkerEngine):
    """Persistent worker processes, one thread each."""

    def __init__(self, roster: Roster, workers: int) -> None:
        super().__init__(roster, workers)
        self._shared = self._share_memory()
        self._died = ""
        rows = roster.config.federation.round_size
        self._workers = [self._start() for _ in range(min(workers, rows))]

    def _share_memory(self) -> _SharedModels:
        spec = self.roster.spec
        try:
            self.roster.images.share_memory()
            self.roster.shares.share_memory()
            return _SharedModels(
                ModelState(
                    torch.zeros(spec.num_parameters).share_memory_(),
                    torch.zeros(spec.num_buffers).share_memory_(),
                ),
                torch.zeros(spec.num_parameters).share_memory_(),
                self.weights.share_memory_(),
                self.buffers.share_memory_(),
            )
        except (RuntimeError, OSError) as error:  # torch raises RuntimeError for a full /dev/shm
            needed = sum(each.nbytes for each in (self.weights, self.buffers)) / 2**20
            said = " ".join(str(error).split())[-200:]
            raise NoWorkers(
                f"{_SHM} is too small to share {needed:,.0f} MB of models with workers ({said}); "
                "give a container more with docker run --shm-size, or use settings.engine = inline "
                "(--engine inline)."
            ) from error

    def started(self) -> Self:
        """Wait until a worker is ready, and return this pool.

        Raises
        ------
        NoWorkers
            If all died before.
        """
        try:
            while not any(worker.ready for worker in self._workers):
                self._hear(Schedule((), (), self.memory))
        except BaseException:
            self.close()
            raise
        return self

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
                if worker.task is None and worker.ready and (task := schedule.take()) is not None:
                    worker.task = task
                    with contextlib.suppress(BrokenPipeError):  # seen to be dead just below
                        worker.pipe.send(self._request(broadcast, task))
            self._hear(schedule)

    def _hear(self, schedule: Schedule) -> None:
        """Wait until a worker says something or dies, of those that train or get ready."""
        heard = [worker for worker in self._workers if worker.task or not worker.ready]
        if not heard:
            raise NoWorkers(
                f"no worker process starts here ({self._died}; what it said stands above). A "
                f"script that starts a run must do so under `{GUARD}`; settings.engine = inline "
                "needs no workers."
            )
        ready = wait([w.pipe for w in heard] + [w.process.sentinel for w in heard])
        for worker in heard:
            if worker.pipe in ready and (answer := _receive(worker.pipe)) is not None:
                self._answered(worker, answer, schedule)
            elif worker.pipe in ready or worker.process.sentinel in ready:
                self._bury(worker, schedule)

    def _answered(self, worker: _Worker, answer: "_Arrays | Fault", schedule: Schedule) -> None:
        if not worker.ready:
            worker.ready = True
            return
        assert worker.task is not None
        done = _tensors(answer) if isinstance(answer, dict) else answer
        schedule.complete(worker.task, done)
        worker.task = None

    def _bury(self, worker: _Worker, schedule: Schedule) -> None:
        """Replace a worker that died at its task; one that never got ready would die again."""
        worker.process.join()
        self._died, place = f"exit {worker.process.exitcode}", self._workers.index(worker)
        if worker.task is not None:
            self._workers[place] = self._start()
            schedule.lost(worker.task, "worker", self._died)
        else:
            del self._workers[place]
            log.warning("a worker died as it started (%s)", self._died)

    def _request(self, broadcast: Broadcast, task: Task) -> _Request:
        return _Request(
            broadcast.round,
            task.client,
            task.row % self.rows,
            broadcast.previous is not None,
            _arrays(self.memory.get(task.client, {})),
            _arrays(broadcast.trigger),
        )

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


_Arrays = dict[str, tuple[NDArray[Any], torch.dtype]]
"""Tensors that go through a pipe: as such, each would take a file of shared memory."""

_CARRIERS = {torch.bfloat16: torch.int16}
"""What stands for numbers that NumPy has not, bit by bit."""


def _arrays(tensors: Mapping[str, Tensor]) -> _Arrays:
    return {
        name: (each.detach().cpu().view(_CARRIERS.get(each.dtype, each.dtype)).numpy(), each.dtype)
        for name, each in tensors.items()
    }


def _tensors(arrays: _Arrays) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array).view(dtype) for name, (array, dtype) in arrays.items()}


def _receive(pipe: "Connection[Any, Any]") -> "_Arrays | Fault | None":
    try:
        return pipe.recv()
    except (EOFError, OSError):
        return None


def _work(roster: Roster, shared: _SharedModels, pipe: "Connection[Any, Any]") -> None:
    torch.set_num_threads(1)
    keep_pages()
    trainer = LocalTrainer(roster)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(_READY)
        while True:
            request: _Request = pipe.recv()
            broadcast = Broadcast(
                request.round,
                shared.sent,
                shared.previous if request.has_previous else None,
                _tensors(request.trigger),
            )
            out = ModelState(shared.weights[request.row], shared.buffers[request.row])
            try:
                memory = _tensors(request.memory)
                answer = _arrays(trainer.train(broadcast, request.client, out, memory))
            except (Exception, SystemExit) as error:  # a plugin's own sys.exit is an error of it
                answer = fault_of(error)
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
