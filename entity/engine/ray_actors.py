"""Local training in Ray's actors, on this machine or on a cluster.

Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018, arXiv
1712.05889. An actor has one core and one thread and lives as long as the experiment. The global
model is put into Ray's object store once a round, which brings it to every node once; the data
set never travels where a node has it (`transfer`). A client whose actor or node is lost is tried
once more on the others, as in the pool.
"""

import importlib
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from entity.client import Broadcast
from entity.client.poison import TriggerMemory
from entity.config.schema import ConfigError
from entity.engine.allocator import keep_pages
from entity.engine.contract import ClientMemory
from entity.engine.local_training import LocalTrainer
from entity.engine.ray_cluster import join, require_ray, shortage
from entity.engine.schedule import Fault, Schedule, Task, fault_of
from entity.engine.transfer import PackedRoster
from entity.engine.worker_engine import WorkerEngine
from entity.layout import ModelState
from entity.setup.roster import Roster

log = logging.getLogger("entity")

PATIENCE = 60.0
"""Seconds without any actor after which the log says that we wait for one."""


class _Sent(NamedTuple):
    """A broadcast as arrays, which all actors of a node read from the same memory."""

    round: int
    weights: NDArray[np.float32]
    buffers: NDArray[np.float32]
    previous: NDArray[np.float32] | None
    trigger: TriggerMemory


class _Model(NamedTuple):
    """A trained model as arrays, and what its client wants to remember."""

    weights: NDArray[np.float32]
    buffers: NDArray[np.float32]
    memory: ClientMemory


class _Ready(NamedTuple):
    """What an actor says when it may be asked to train."""

    node: str
    """Address of its node."""
    fault: str = ""
    """Why it cannot train."""


class TrainingActor:
    """What an actor runs."""

    def open(self, packed: PackedRoster) -> _Ready:
        """Build the model, and map the images."""
        torch.set_num_threads(1)
        keep_pages()
        fault = ""
        try:
            self.trainer = LocalTrainer(packed.unpack())
        except Exception as error:
            fault = str(fault_of(error))
        return self.ping()._replace(fault=fault)

    def ping(self) -> _Ready:
        """Say which node this is."""
        return _Ready(importlib.import_module("ray").util.get_node_ip_address())

    def train(self, sent: _Sent, client: int, memory: ClientMemory) -> _Model | Fault:
        """Train a client; return its model, or its error.

        Parameters
        ----------
        sent
            The broadcast.
        client
            Who trains.
        memory
            What the client has kept from its last round.
        """
        previous = None if sent.previous is None else torch.tensor(sent.previous)
        state = ModelState(torch.tensor(sent.weights), torch.tensor(sent.buffers))
        broadcast = Broadcast(sent.round, state, previous, sent.trigger)
        out = ModelState(torch.empty_like(state.weights), torch.empty_like(state.buffers))
        try:
            remembered = self.trainer.train(broadcast, client, out, memory)
        except (Exception, SystemExit) as error:
            return fault_of(error)
        return _Model(out.weights.numpy(), out.buffers.numpy(), remembered)


_LOST = ("RayActorError", "ObjectLostError", "NodeDiedError", "OutOfMemoryError")
"""Errors of an actor or a node that is gone; the last is of one that Ray itself has ended."""


@dataclass
class _Worker:
    actor: Any
    answer: Any
    """Reference to the answer that it owes; None while it is idle."""
    task: Task | None = None
    """Whom it trains; None while it gets ready."""
    node: str = ""


class RayActors(WorkerEngine):
    """Persistent actors of Ray, one core each."""

    def __init__(self, roster: Roster, workers: int) -> None:
        settings = roster.config.settings
        self._ray = require_ray("settings.engine = ray", settings.ray_address)
        self._owned = join(self._ray, settings.ray_address, workers)
        self._workers: list[_Worker] = []
        try:
            if settings.workers == 0:
                cores = int(self._ray.cluster_resources().get("CPU", 1))
                workers = min(cores, settings.num_parallel_max)
            super().__init__(roster, max(1, workers))
            self._lost = tuple(getattr(self._ray.exceptions, name) for name in _LOST)
            self._gpus = int(roster.device.type == "cuda")
            self._actor = self._ray.remote(TrainingActor).options(num_cpus=1, num_gpus=self._gpus)
            self._packed = self._ray.put(PackedRoster.of(roster))
            rows = roster.config.federation.round_size
            self._workers.extend(self._start() for _ in range(min(max(1, workers), rows)))
        except BaseException:
            self.close()
            raise

    def carry_out(self, broadcast: Broadcast, schedule: Schedule) -> None:
        """Put the broadcast into the store once, and give every idle actor a task."""
        state, previous = broadcast.state, broadcast.previous
        sent = self._ray.put(
            _Sent(
                broadcast.round,
                state.weights.numpy(),
                state.buffers.numpy(),
                None if previous is None else previous.numpy(),
                broadcast.trigger,
            )
        )
        while not schedule.done:
            for worker in self._workers:
                if worker.answer is None and (task := schedule.take()) is not None:
                    memory = self.memory.get(task.client, {})
                    worker.task = task
                    worker.answer = worker.actor.train.remote(sent, task.client, memory)
            asked = [worker for worker in self._workers if worker.answer is not None]
            answers = [worker.answer for worker in asked]
            ready, _ = self._ray.wait(answers, timeout=PATIENCE)
            if ready:  # and all others that are, so that no actor waits for its next task
                ready, _ = self._ray.wait(answers, num_returns=len(answers), timeout=0)
            elif not any(worker.task for worker in asked):
                short = shortage(self._ray, 1, self._gpus) or "no core is free"
                log.warning("ray: %s; waiting for one", short)
            for worker in asked:
                if worker.answer in ready:
                    self._receive(worker, schedule)

    def _receive(self, worker: _Worker, schedule: Schedule) -> None:
        task, answer = worker.task, worker.answer
        try:
            reply: _Ready | _Model | Fault = self._ray.get(answer)
        except self._lost:
            self._replace(worker)
            if task is not None:
                schedule.lost(task, "actor", f"on {worker.node}")
            return
        worker.task = worker.answer = None
        if isinstance(reply, _Ready):
            worker.node = reply.node
            if reply.fault:
                raise ConfigError(f"ray: node {reply.node} cannot train: {reply.fault}")
            return
        assert task is not None
        if isinstance(reply, Fault):
            schedule.complete(task, reply)
        else:
            out = self.out(task.row)
            np.copyto(out.weights.numpy(), reply.weights)
            np.copyto(out.buffers.numpy(), reply.buffers)
            schedule.complete(task, reply.memory)

    def _start(self) -> _Worker:
        actor = self._actor.remote()
        return _Worker(actor, actor.open.remote(self._packed))

    def _replace(self, worker: _Worker) -> None:
        """Start an actor in place of a lost one, and ask the idle ones whether they are there.

        If a node is lost, so are its idle actors, and no client should pay for finding that out.
        A new actor waits until the cluster has a core for it; the others go on meanwhile.
        """
        self._ray.kill(worker.actor)
        fresh = self._start()
        worker.actor, worker.answer, worker.task = fresh.actor, fresh.answer, None
        for other in self._workers:
            if other.answer is None:
                other.answer = other.actor.ping.remote()

    def close(self) -> None:
        """End the actors, and Ray itself where we have started it."""
        for worker in self._workers:
            self._ray.kill(worker.actor)
        self._workers = []
        if self._owned:
            self._ray.shutdown()
