"""Trackers as the run sees them: processes that are started, woken after a round, and ended."""

import importlib.util
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from entity.config.schema import ConfigError
from entity.record.atomic import write_atomically
from entity.record.follow import last_line
from entity.record.links import open_own

log = logging.getLogger("entity")

TRACKERS: dict[str, str] = {
    "tensorboard": "entity.trackers.tensorboard:TensorBoard",
    "wandb": "entity.trackers.wandb:WeightsAndBiases",
    "mlflow": "entity.trackers.mlflow:MLflow",
}
"""Adapters by name, which is also that of their package and of their extra."""

PATIENCE = 60.0
"""Seconds that trackers have after the run to send what they still hold."""

_SILENT = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Otherwise both packages report usage to their makers, which nobody has asked for."""


def require(names: Sequence[str], folder: Path | None) -> None:
    """Refuse trackers that cannot work here.

    Raises
    ------
    ConfigError
        If a tracker's package is not installed, or there is no folder for it to read.
    """
    for name in names:
        spec = importlib.util.find_spec(name)
        # Without an origin it is a mere folder, such as the one where wandb puts its own runs.
        if spec is None or spec.origin is None:
            raise ConfigError(
                f"settings.trackers = {name}: its package is not installed; "
                f"pip install -e '.[{name}]' does that."
            )
    if names and folder is None:
        raise ConfigError(
            f"settings.trackers = {', '.join(names)}: trackers read the run directory; give one."
        )


@dataclass
class _Running:
    name: str
    process: subprocess.Popen[bytes]
    output: Path
    """File of what it prints."""


class Trackers:
    """The trackers of one run; a context manager around all of it, writing the summary included.

    Parameters
    ----------
    names
        Keys of `TRACKERS`.
    folder
        The run directory.
    """

    def __init__(self, names: Sequence[str], folder: Path | None) -> None:
        self.names, self.folder = tuple(dict.fromkeys(names)), folder
        self._running: list[_Running] = []

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start the trackers; the record must exist."""
        if self.folder is None:
            return
        for name in self.names:
            try:
                self._running.append(_start(name, self.folder))
            except OSError as error:
                _warn(name, str(error))

    def wake(self) -> None:
        """Let the trackers read on, and drop those that have died."""
        for tracker in list(self._running):
            assert tracker.process.stdin is not None
            with suppress(OSError):  # a full pipe of one that reads no more, or a broken one
                os.write(tracker.process.stdin.fileno(), b"\n")
            if tracker.process.poll() is not None:
                self._running.remove(tracker)
                _close(tracker)

    def __exit__(self, *error: object) -> None:
        """Let the trackers end, and kill those that take longer than `PATIENCE`."""
        deadline = time.monotonic() + PATIENCE
        try:
            for tracker in self._running:
                assert tracker.process.stdin is not None
                with suppress(OSError):
                    tracker.process.stdin.close()
            for tracker in self._running:
                with suppress(subprocess.TimeoutExpired):
                    tracker.process.wait(max(0.0, deadline - time.monotonic()))
        finally:  # also for Ctrl-C, which means at once
            for tracker in self._running:
                _close(tracker)
            self._running.clear()


def _start(name: str, folder: Path) -> _Running:
    own = folder / "trackers"
    own.mkdir(exist_ok=True)
    identity = own / "id"
    if not identity.exists() or not identity.read_text():
        write_atomically(identity, secrets.token_hex(8).encode())
    job = {"name": name, "adapter": TRACKERS[name], "folder": str(folder), "patience": PATIENCE}
    path = own / f"{name}.log"
    with open_own(path, "ab") as output:
        process = subprocess.Popen(
            # -P: a folder `wandb` of the user's is not that module.
            [sys.executable, "-P", "-m", "entity.trackers.process", json.dumps(job)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=_environment(),
            bufsize=0,
            process_group=0,  # Ctrl-C is the run's, which then lets its trackers end
        )
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    return _Running(name, process, path)


def _environment() -> Mapping[str, str]:
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**_SILENT, **os.environ, "PYTHONPATH": paths}


def _close(tracker: _Running) -> None:
    """End a tracker, by force if necessary, and warn if it failed."""
    code = tracker.process.poll()
    if code is None:
        tracker.process.kill()
        tracker.process.wait()
        _warn(tracker.name, f"it had not ended {PATIENCE:g} s after the run")
    elif code:
        _warn(tracker.name, last_line(tracker.output) or f"it ended with exit code {code}")
    assert tracker.process.stdin is not None
    with suppress(OSError):
        tracker.process.stdin.close()


def _warn(name: str, reason: str) -> None:
    log.warning("the tracker %s is dropped, the run is not touched by it: %s", name, reason)
