"""The journal of a run: all that happens around the federated loop so that none of it is lost.

It locks the run directory, begins a record or resumes one, writes a line and a checkpoint after
every round, counts what the defense detected, wakes the trackers, and says in `summary.json`
whether the run is `running`, `finished` or `interrupted`.
"""

import logging
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from entity.config.full_disk import DiskFull, reason
from entity.config.schema import ConfigError
from entity.dataset import DATASETS, source_of
from entity.metrics import Detection
from entity.record.atomic import writing
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.directory import Record, refuse_nested, refuse_replaced
from entity.record.links import refuse_links
from entity.record.lock import locked
from entity.record.packing import pack
from entity.record.rounds import Round
from entity.record.summary import summarise
from entity.setup.assembly import World, initial_state, is_evaluated
from entity.setup.example import Example
from entity.setup.identity import identity, to_json
from entity.setup.resume import origin, resumed
from entity.trackers import Trackers

log = logging.getLogger("entity")


class Journal(AbstractContextManager["Journal"]):
    """The journal of one run: a context manager around it.

    Leaving the block before `finish` writes the checkpoint of the last finished round and marks the
    run as interrupted, whatever the reason.

    Parameters
    ----------
    folder
        The run directory; None keeps the record in memory.
    overwrite
        Replace a run that the folder already holds.
    resume
        Go on with the run that the folder holds.
    """

    def __init__(self, folder: Path | None, *, overwrite: bool, resume: bool) -> None:
        self.folder, self.overwrite, self.resume = folder, overwrite, resume
        self.summary: dict[str, Any] = {}
        """As it was last written."""
        self._detection = Detection()
        self._open = ExitStack()
        self._certificate: dict[str, Any] | None = None
        self._class_names: list[str] = []
        self._begun = self._finished = self._packed = False

    def check(self) -> None:
        """Refuse a folder that cannot be the run's, before anything is written or started.

        Raises
        ------
        ConfigError
            If it holds a run that is neither to be resumed nor overwritten, lies in one, or has
            some below it.
        """
        if self.folder is not None and not self.resume:
            refuse_links(self.folder)
            refuse_nested(self.folder)
            refuse_replaced(self.folder, self.overwrite)

    def begin(self, world: World) -> Snapshot:
        """Return the state from which the run starts: before round 1, or where it was stopped.

        Only from here on is anything written.

        Raises
        ------
        ConfigError
            If the folder is in use, cannot be written, or holds a run by now that is not to be
            overwritten, or another one than that to resume.
        """
        self._world, folder = world, self.folder
        self._identity = identity(world.config)
        if world.config.dataset not in DATASETS:  # whose names everybody knows
            self._class_names = [*source_of(world.config).class_names]
        self._open.enter_context(locked(folder))
        settings = world.config.settings
        self._trackers = self._open.enter_context(Trackers(settings.trackers, folder))
        self._data = "" if folder is None else world.split.digest()
        whose = {} if folder is None else origin(world.config, self._data)
        self._checkpoints = Checkpoints(folder, whose, settings.checkpoint_every)
        state = resumed(self._checkpoints, folder) if self.resume and folder else None
        self._record = Record(
            folder,
            to_json(world.config),
            overwrite=self.overwrite,
            keep=(state.round if state else 0) if self.resume else None,
            judged=partial(is_evaluated, world.config),
        )
        if state is not None:
            self._detection = Detection.of_counters(state.detection)
        if self.resume:  # a finished run to which rounds are added is not finished any more
            with self._writing():
                self._summarise("running")
        self._trackers.start()
        self._begun = True
        if state is None:
            return Snapshot(0, initial_state(world.config, world.roster, world.server))
        world.server.restore(state.server)
        return state

    def keep(self, state: Snapshot, played: Round) -> dict[str, Any]:
        """Write a finished round and return its line; all is on disk when this returns.

        Parameters
        ----------
        state
            The state after the round; the counters of detection are added here.
        played
            What happened in it.

        Raises
        ------
        DiskFull
            If it cannot be written.
        ConfigError
            If the defense has a state that no checkpoint can hold.
        """
        with self._writing():
            self._record.append(played.line(), played.answer.artifacts)
            self._detection.add(played.answer.verdicts, played.poisoned)
            with self._packable():
                if self.folder is not None and not self._packed:
                    pack(state.server)  # in the first round, not where the first checkpoint is due
                    self._packed = True
                self._checkpoints.take(replace(state, detection=asdict(self._detection)))
            self._summarise("running")
        self._trackers.wake()
        return self.rounds[-1]

    def finish(
        self,
        model: Mapping[str, object],
        certificate: dict[str, Any] | None,
        example: Example | None = None,
    ) -> None:
        """Write the last checkpoint, the final global model, its example and the summary.

        Parameters
        ----------
        model
            Its `state_dict`.
        certificate
            Of `entity.setup.certificate`, for the summary.
        example
            Of `entity.setup.example`, for the report.

        Raises
        ------
        DiskFull
            If one cannot be written.
        """
        self._certificate = certificate
        with self._writing():
            self._checkpoints.flush()
            self._record.keep_model(model, self._identity)
            if example is not None:
                said = {"target": example.target, "classes": example.class_names}
                self._record.keep_example(example.tensors, said)
            self._summarise("finished")
        self._finished = True

    def _writing(self) -> AbstractContextManager[None]:
        return writing(self.folder or Path(), begun=True)

    @contextmanager
    def _packable(self) -> Generator[None]:
        try:
            yield
        except TypeError as error:
            where = f"{type(self._world.server).__name__}.state_dict"
            raise ConfigError(
                f"{where}: {error}; allowed are tables, lists, tensors, numbers, texts and None."
            ) from error

    @property
    def rounds(self) -> list[dict[str, Any]]:
        """Lines of all rounds so far, those before a resume included."""
        return self._record.rounds

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._open:  # lets the trackers end, then unlocks
            if self._begun and not self._finished:
                self._keep_what_there_is(quiet=isinstance(error[1], DiskFull))

    def _keep_what_there_is(self, quiet: bool) -> None:
        """Write the last checkpoint and the summary; no error here hides why the run has ended."""
        failed: OSError | None = None
        for write in (self._checkpoints.flush, lambda: self._summarise("interrupted")):
            try:
                write()
            except OSError as error:
                failed = error
            except TypeError:  # a state that cannot be kept, which is why the run has ended
                continue
        if failed and not quiet:
            log.warning("%s: cannot be written to the end (%s)", self.folder, reason(failed))

    def _summarise(self, state: str) -> None:
        self.summary = summarise(
            self._world.config,
            self._identity,
            self._record.rounds,
            self._detection,
            state=state,
            before=self._record.before,
            poisoned_share=self._world.roster.poisoned_share,
        )
        if self._data:
            self.summary["data"] = self._data
        if self._class_names:
            self.summary["classes"] = self._class_names
        if self._certificate is not None:
            self.summary["certificate"] = self._certificate
        self._record.summarise(self.summary)


__all__ = ["Journal"]
