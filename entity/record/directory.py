"""The run directory: what an experiment leaves behind, written so that a crash loses nothing.

`config.json` (resolved), `rounds.jsonl` (a line a round, flushed to disk when the round is done),
`summary.json` (kept current while the run goes on), `artifacts/` (pictures and trees of single
rounds, safetensors), `checkpoint/` (see `checkpoint.py`), `trackers/` (what those that were asked
for keep) and, once it is finished, `model.safetensors`. Whole files are written aside and renamed.
"""

import fcntl
import json
import logging
import math
import os
import resource
import shutil
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from entity.config.schema import ConfigError

log = logging.getLogger("entity")


class Record:
    """Writer of one run directory; with `folder` None it keeps the rounds in memory only.

    Parameters
    ----------
    folder
        The run directory.
    config
        The resolved config.
    overwrite
        Replace a run that the folder already holds.
    keep
        Take up the run that the folder holds after so many of its rounds, which must be whole;
        what came later is cut off. None begins a new run.

    Raises
    ------
    ConfigError
        If the folder already holds a run and is not to be overwritten, or cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        keep: int | None = None,
    ) -> None:
        self.folder = folder
        self.rounds: list[dict[str, Any]] = []
        self.before: dict[str, Any] = {}
        """The summary of the run that was taken up."""
        if folder is None:
            return
        try:
            if keep is not None:
                self._take_up(folder, keep)
            elif (folder / "rounds.jsonl").exists() and not overwrite:
                raise ConfigError(
                    f"--out {folder}: already holds a run; choose another folder, go on with it by "
                    f"--resume {folder}, or add --overwrite."
                )
            else:
                _clear(folder)
            write_json(folder / "config.json", config)
            (folder / "rounds.jsonl").touch()
        except OSError as error:
            raise ConfigError(f"--out {folder}: cannot be written ({error.strerror}).") from error

    def _take_up(self, folder: Path, keep: int) -> None:
        lines = whole_lines(folder)[:keep]
        self.rounds = [json.loads(line) for line in lines]
        self.before = read_summary(folder)
        path = folder / "rounds.jsonl"
        if path.exists() and path.stat().st_size != sum(map(len, lines)):
            write_aside(path, b"".join(lines))
        for artifact in folder.glob("artifacts/round_*"):
            if not artifact.stem[6:].isdigit() or int(artifact.stem[6:]) > keep:
                artifact.unlink()
        (folder / "model.safetensors").unlink(missing_ok=True)

    def append(self, line: dict[str, Any], artifacts: Mapping[str, Tensor]) -> None:
        """Add a finished round; when this returns it is on disk."""
        line = _plain(line)
        self.rounds.append(line)
        if self.folder is None:
            return
        if artifacts:
            place = self.folder / "artifacts" / f"round_{line['round']:04d}.safetensors"
            place.parent.mkdir(exist_ok=True)
            tensors = {name: tensor.contiguous() for name, tensor in artifacts.items()}
            write_aside(place, save(tensors))
        with (self.folder / "rounds.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary."""
        if self.folder is not None:
            write_json(self.folder / "summary.json", summary)

    def keep_model(self, tensors: Mapping[str, Tensor], config_hash: str) -> None:
        """Write the final global model by the names of a `state_dict`, and whose it is."""
        if self.folder is not None:
            own = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
            }
            # One entry: safetensors writes several in random order.
            content = save(own, {"config_hash": config_hash})
            write_aside(self.folder / "model.safetensors", content)


def _clear(folder: Path) -> None:
    """Make a folder for a new run, and forget a run that it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    # config.json first: without it the rest is no run that somebody could take up.
    for name in ("config.json", "rounds.jsonl", "summary.json", "model.safetensors"):
        (folder / name).unlink(missing_ok=True)
    for old in [*folder.glob("artifacts/round_*"), *folder.glob("checkpoint/round_*")]:
        old.unlink()
    shutil.rmtree(folder / "trackers", ignore_errors=True)  # a new run is another one to them


def whole_lines(folder: Path) -> list[bytes]:
    """Return the lines of a run's rounds.jsonl up to the first that is not whole."""
    path = folder / "rounds.jsonl"
    whole: list[bytes] = []
    for line in path.read_bytes().splitlines(keepends=True) if path.exists() else []:
        try:
            number = json.loads(line)["round"]
        except (ValueError, LookupError, TypeError):
            break
        if number != len(whole) + 1 or not line.endswith(b"\n"):
            break
        whole.append(line)
    return whole


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's summary; empty where there is none."""
    try:
        found = json.loads((folder / "summary.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def locked(folder: Path | None) -> Generator[None]:
    """Keep other processes off a run directory, which is made if need be.

    The lock goes with the process that holds it, however that ends; its file stays.

    Raises
    ------
    ConfigError
        If another process has it, or if the folder cannot be written.
    """
    if folder is None:
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("a+")
    except OSError as error:
        raise ConfigError(f"--out {folder}: cannot be written ({error.strerror}).") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConfigError(
                f"{folder}: process {file.read() or 'unknown'} is at work on this run; wait until "
                "it is done, or stop it."
            ) from None
        except OSError as error:  # some network file systems have no locks
            log.warning("%s cannot be locked (%s): start no second process on it", folder, error)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file aside and rename it into place; NaN becomes null."""
    write_aside(path, (json.dumps(_plain(value), indent=2) + "\n").encode())


def write_aside(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to disk and rename it into place."""
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def sync_folder(folder: Path) -> None:
    """Flush to disk which files a folder holds under which names."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def tail_statistics(
    rounds: Sequence[Mapping[str, Any]], name: str, last: int = 10
) -> dict[str, Any]:
    """Return `final`, `last10` (mean) and `max_last10` of a metric over the evaluated rounds."""
    recent = [line[name] for line in rounds[-last:] if line[name] is not None]
    if not recent:
        return {"final": None, "last10": None, "max_last10": None}
    return {"final": recent[-1], "last10": fmean(recent), "max_last10": max(recent)}


def total_seconds(rounds: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the seconds of all rounds by phase."""
    totals: dict[str, float] = {}
    for line in rounds:
        for phase, seconds in line["seconds"].items():
            totals[phase] = totals.get(phase, 0.0) + seconds
    return {phase: round(seconds, 3) for phase, seconds in totals.items()}


def peak_memory_mb(of_workers: bool = False) -> float:
    """Return the largest resident size so far of this process, or of its largest ended child."""
    who = resource.RUSAGE_CHILDREN if of_workers else resource.RUSAGE_SELF
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return round(resource.getrusage(who).ru_maxrss / unit, 1)
