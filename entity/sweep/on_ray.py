"""Cells on a cluster of Ray: each runs where cores are free, as a process like those of `process`.

The nodes must share the folder of the runs, as they do for Ray's own libraries: a run directory is
written by the node, read here, and a run whose node is lost goes on elsewhere from its checkpoint.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from entity.engine.ray_cluster import join, require_cluster, require_ray, shortage
from entity.record.directory import ERROR
from entity.sweep.cells import Cell
from entity.sweep.process import GRACE, OUTPUT, Process
from entity.sweep.worker import FAILED, REFUSED

log = logging.getLogger("entity")


class NodeWorker:
    """An actor of Ray, with one worker process on its node."""

    process: Process | None = None
    stopped = False

    def run(self, cell: Cell, resume: bool) -> tuple[int, str]:
        """Run a cell to its end; return its exit code, and why if its folder cannot say that."""
        if not (cell.folder / OUTPUT).exists():
            return REFUSED, "is not there on the node: a cluster must share the folder of the runs"
        try:
            self.process = Process(cell, resume=resume)
        except OSError as error:
            return FAILED, str(error)
        while self.process.read():
            pass
        # A worker that was stopped has not failed, and its folder should not say so.
        return (self.process.wait() if self.stopped else self.process.end()), ""

    def progress(self) -> tuple[int, int, float]:
        """Return the last round, the rounds run here, and the seconds they took."""
        process = self.process
        return (process.round, process.rounds_run, process.seconds) if process else (0, 0, 0.0)

    def stop(self) -> None:
        """Ask the worker to save its run and end."""
        self.stopped = True
        if self.process is not None:
            self.process.terminate()


class RayAttempt:
    """One attempt at a cell, somewhere on the cluster.

    Parameters
    ----------
    ray
        The module.
    worker
        Handle of a `NodeWorker`.
    cell
        The cell to run.
    resume
        Resume the run in its folder; otherwise it starts from the beginning.
    """

    def __init__(self, ray: Any, worker: Any, cell: Cell, *, resume: bool) -> None:
        self.cell, self.resume = cell, resume
        self.round = self.rounds_run = 0
        self.seconds = 0.0
        self.worker = worker
        self._ray = ray
        # The earlier run is no part of the message: the node reads it from its folder.
        self.answer = worker.run.remote(replace(cell, done=None), resume)
        self._asked = worker.progress.remote()

    def look(self) -> None:
        """Note its progress, if the last question is answered."""
        if self._ray.wait([self._asked], timeout=0)[0]:
            with suppress(self._ray.exceptions.RayError):  # its end will tell
                self.round, self.rounds_run, self.seconds = self._ray.get(self._asked)
                self._asked = self.worker.progress.remote()

    def end(self) -> int:
        """Return the exit code; a lost node is a failure, which another node may not have."""
        self.look()
        try:
            code, why = self._ray.get(self.answer)
        except self._ray.exceptions.RayError as error:
            code, why = FAILED, f"its node or process was lost ({type(error).__name__})"
        self._ray.kill(self.worker)
        if why:
            with suppress(OSError):  # a full disk
                (self.cell.folder / ERROR).write_text(f"{self.cell.folder}: {why}\n", "utf-8")
        return code


class Cluster:
    """A cluster of Ray, as a place for cells.

    Parameters
    ----------
    address
        `auto` for the one that this machine belongs to, or HOST:PORT.
    jobs
        Runs side by side; None for as many as the cluster has cores.
    option
        Name of the option or field that chose the cluster, for errors.

    Raises
    ------
    ConfigError
        If Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str, jobs: int | None, option: str = "ray") -> None:
        self._ray = require_ray(f"{option} {address}", address)
        if address != "auto":
            require_cluster(address, option)
        self._owned = join(self._ray, address, 0, option)
        resources = self._ray.cluster_resources()
        self.jobs = jobs or max(1, int(resources.get("CPU", 1)))
        self._gpus = resources.get("GPU", 0) > 0
        self._worker_class = self._ray.remote(NodeWorker)

    def start(self, cell: Cell, *, resume: bool) -> RayAttempt:
        """Ask for a worker with as many cores as the cell needs; it waits until they are free."""
        cell.folder.mkdir(parents=True, exist_ok=True)
        (cell.folder / OUTPUT).touch()
        settings = cell.config.settings
        cores = max(1, settings.num_threads, settings.workers)
        gpus = int(settings.cuda != "mps" and settings.cuda >= 0 and self._gpus)
        if short := shortage(self._ray, cores, gpus):
            log.warning("%s waits for a larger node: %s", cell.name, short)
        worker = self._worker_class.options(
            num_cpus=cores,
            num_gpus=gpus,
            max_concurrency=3,  # while a cell runs, it is asked for its progress and stopped
        ).remote()
        return RayAttempt(self._ray, worker, cell, resume=resume)

    def over(self, running: Sequence[RayAttempt], seconds: float) -> list[RayAttempt]:
        """Return attempts whose workers have ended or are lost."""
        answers = [attempt.answer for attempt in running]
        self._ray.wait(answers, timeout=seconds)
        ready, _ = self._ray.wait(answers, num_returns=len(answers), timeout=0)
        for attempt in running:
            attempt.look()
        return [attempt for attempt in running if attempt.answer in ready]

    def stop(self, running: Sequence[RayAttempt]) -> None:
        """End attempts: first by request, then by force; and leave the cluster."""
        try:
            began = [attempt for attempt in running if attempt.seconds]  # others wait for a core
            for attempt in began:
                attempt.worker.stop.remote()
            if answers := [attempt.answer for attempt in began]:
                self._ray.wait(answers, num_returns=len(answers), timeout=GRACE)
        finally:  # also for a second Ctrl-C, which means at once
            for attempt in running:
                self._ray.kill(attempt.worker)
            if self._owned:
                self._ray.shutdown()
