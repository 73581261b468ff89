"""Trackers as the run sees them: processes that are started, woken after a round, and let go."""

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
from types import TracebackType
from typing import Self

from entity.config.schema import ConfigError

log = logging.getLogger("entity")

TRACKERS: dict[str, str] = {
    "tensorboard": "entity.trackers.tensorboard:TensorBoard",
    "wandb": "entity.trackers.wandb:WeightsAndBiases",
    "mlflow": "entity.trackers.mlflow:MLflow",
}
"""Adapters by name, which is also that of their package and of their extra."""

PATIENCE = 60.0
"""Seconds that trackers have, once the run is over, to send what they still hold."""

_SILENT = {"WANDB_ERROR_REPORTING": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Both packages send reports to their makers otherwise; nobody has asked for that."""


def require(names: Sequence[str], folder: Path | None) -> None:
    """Refuse trackers that cannot work here.

    Raises
    ------
    ConfigError
        For one whose package is not installed, or if there is no record that it could read.
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
    words: Path
    """What it prints."""


class Trackers:
    """The trackers of one run; a context manager around the whole of it, the summary included.

    Parameters
    ----------
    names
        Which, of `TRACKERS`.
    folder
        The run directory.
    """

    def __init__(self, names: Sequence[str], folder: Path | None) -> None:
        self.names, self.folder = tuple(dict.fromkeys(names)), folder
        self._running: list[_Running] = []

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them, on a record that has been begun."""
        if self.folder is None:
            return
        for name in self.names:
            try:
                self._running.append(_start(name, self.folder))
            except OSError as error:
                _warn(name, str(error))

    def wake(self) -> None:
        """Let them read on, and drop those that have died."""
        for tracker in list(self._running):
            assert tracker.process.stdin is not None
            with suppress(OSError):  # a full pipe of one that reads no more, or a broken one
                os.write(tracker.process.stdin.fileno(), b"\n")
            if tracker.process.poll() is not None:
                self._running.remove(tracker)
                _close(tracker)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let them end, for as long as `PATIENCE` lasts."""
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
    path = own / "id"
    if not path.exists():
        path.write_text(secrets.token_hex(8))
    job = {"name": name, "adapter": TRACKERS[name], "folder": str(folder), "patience": PATIENCE}
    words = own / f"{name}.log"
    with words.open("ab") as output:
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
    return _Running(name, process, words)


def _environment() -> Mapping[str, str]:
    paths = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return {**_SILENT, **os.environ, "PYTHONPATH": paths}


def _close(tracker: _Running) -> None:
    """Take leave of a tracker, by force if need be, and say so if it did not do its work."""
    code = tracker.process.poll()
    if code is None:
        tracker.process.kill()
        tracker.process.wait()
        _warn(tracker.name, f"it had not ended {PATIENCE:g} s after the run")
    elif code:
        _warn(tracker.name, _last_line(tracker.words) or f"it ended with exit code {code}")
    assert tracker.process.stdin is not None
    with suppress(OSError):
        tracker.process.stdin.close()


def _warn(name: str, reason: str) -> None:
    log.warning("the tracker %s is dropped, the run is not touched by it: %s", name, reason)


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
