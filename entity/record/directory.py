"""The run directory: what an experiment leaves behind, written so that a crash loses nothing.

`config.json` (resolved), `rounds.jsonl` (a line a round, flushed to disk when the round is done),
`summary.json` (kept current while the run goes on), `artifacts/` (pictures and trees of single
rounds, safetensors), `checkpoint/` (see `checkpoint.py`), `trackers/` (what the trackers keep) and,
once the run is finished, `model.safetensors` and `artifacts/example.safetensors` (images of the
attack, and what the model says of them).
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from entity.config.schema import ConfigError
from entity.record.atomic import write_atomically, writing
from entity.record.json_files import finite, read_object, write_json
from entity.record.links import open_own
from entity.record.rounds import unjudged, whole_lines

ERROR = "error.txt"
"""Why the last attempt at a run failed, if it did."""
EXAMPLE = "artifacts/example.safetensors"
OF_THE_END = ("model.safetensors", EXAMPLE)
"""Files that a run writes when it is finished."""


class RunExists(ConfigError):
    """A folder holds a run that is not to be replaced."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            f"{folder}: already holds a run; choose another folder, or resume or overwrite the run."
        )
        self.folder = folder


def refuse_nested(folder: Path) -> None:
    """Refuse a folder for a run that lies in another run's, or has other runs below it.

    A run's folder is one of `drop results` as a whole: those within it would be overlooked.

    Raises
    ------
    ConfigError
        With the other folder.
    """
    above = [parent for parent in folder.absolute().parents if _is_run(parent)]
    below = [file.parent for way in ("*", "*/*") for file in folder.glob(f"{way}/rounds.jsonl")]
    inner = [each for each in below if _is_run(each)]
    if above:
        raise ConfigError(f"{folder}: lies in the folder of a run, {above[0]}; choose another one.")
    if inner:
        raise ConfigError(
            f"{folder}: is a folder of runs, such as {inner[0]}, and cannot be one itself; choose "
            "another one."
        )


def refuse_in_a_run(folder: Path) -> None:
    """Refuse a folder for many runs that is one run's, or lies in it.

    Raises
    ------
    ConfigError
        With the run's folder.
    """
    for each in (folder.absolute(), *folder.absolute().parents):
        if _is_run(each):
            raise ConfigError(
                f"{folder}: is the folder of a run, or lies in it ({each}); choose another one."
            )


def refuse_replaced(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds a run with finished rounds, unless it is to be overwritten.

    Raises
    ------
    RunExists
        With the folder.
    """
    if not overwrite and _has_rounds(folder):
        raise RunExists(folder)


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "rounds.jsonl"))


class NoRun(ConfigError):
    """A folder holds no run; the sentence begins with its path."""

    def __init__(self, folder: Path, hint: str = "") -> None:
        super().__init__(f"{folder}: holds no run, as it has no config.json.{hint}")


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
        Resume the run that the folder holds after so many of its rounds, which must be whole;
        later ones are cut off. None begins a new run.
    of_run
        Whether the folder is a run's. The state of a server in Flower has rounds alone, which
        nobody needs in memory, and what else lies there is the operator's.
    judged
        Whether the round of this number is evaluated: a run that goes on with more rounds forgets
        what its last one came to if only the last was.

    Raises
    ------
    RunExists
        If the folder already holds a run and is not to be overwritten.
    CannotWrite
        If the folder cannot be written.
    """

    def __init__(
        self,
        folder: Path | None,
        config: Mapping[str, Any],
        *,
        overwrite: bool = False,
        keep: int | None = None,
        of_run: bool = True,
        judged: Callable[[int], bool] = lambda number: True,
    ) -> None:
        self.folder, self.of_run = folder, of_run
        self.rounds: list[dict[str, Any]] = []
        """Of a run: the lines so far."""
        self.before: dict[str, Any] = {}
        """The summary of the run that was resumed."""
        if folder is None:
            return
        with writing(folder):
            if keep is not None:
                self._resume(folder, keep, judged)
                if of_run:
                    _forget_the_end(folder, keep)
            else:
                refuse_replaced(folder, overwrite)
                _clear(folder)
            write_json(folder / "config.json", config)
            (folder / "rounds.jsonl").touch()

    def _resume(self, folder: Path, keep: int, judged: Callable[[int], bool]) -> None:
        lines = whole_lines(folder)[:keep]
        self.rounds = [json.loads(line) for line in lines] if self.of_run else []
        for place, line in enumerate(self.rounds):
            if line.get("mta") is not None and not judged(line["round"]):
                self.rounds[place] = unjudged(line)
                lines[place] = json.dumps(self.rounds[place]).encode() + b"\n"
        self.before = read_summary(folder)
        if self.before.get("state") == "finished":  # not any more, should this end it
            write_json(folder / "summary.json", {**self.before, "state": "running"})
        path = folder / "rounds.jsonl"
        if path.exists() and path.read_bytes() != b"".join(lines):
            write_atomically(path, b"".join(lines))

    def append(self, line: dict[str, Any], artifacts: Mapping[str, Tensor]) -> None:
        """Add a finished round; it is on disk when this returns."""
        line = finite(line)
        if self.folder is not None:
            _append(self.folder, line, artifacts)
        if self.of_run:
            self.rounds.append(line)

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Replace the summary."""
        if self.folder is not None:
            write_json(self.folder / "summary.json", summary)

    def keep_model(self, tensors: Mapping[str, object], config_hash: str) -> None:
        """Write the final global model by the names of a `state_dict`, and whose it is."""
        if self.folder is not None:
            own = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in tensors.items()
                if isinstance(tensor, Tensor)  # a module's extra state may be anything
            }
            # One entry: safetensors writes several in random order.
            content = save(own, {"config_hash": config_hash})
            write_atomically(self.folder / "model.safetensors", content)

    def keep_example(self, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
        """Write what the final model says of a few images of the attack, and what they mean."""
        if self.folder is not None:
            path = self.folder / EXAMPLE
            path.parent.mkdir(exist_ok=True)
            own = {name: tensor.contiguous() for name, tensor in tensors.items()}
            write_atomically(path, save(own, {"example": json.dumps(said)}))


def _has_rounds(folder: Path) -> bool:
    """Whether a folder holds a run that finished a round; of another nothing is lost."""
    try:
        return (folder / "rounds.jsonl").stat().st_size > 0
    except FileNotFoundError:
        return False


def _append(folder: Path, line: Mapping[str, Any], artifacts: Mapping[str, Tensor]) -> None:
    """Add a line to `rounds.jsonl`, and its round's artifacts; on disk when this returns."""
    if artifacts:
        path = folder / "artifacts" / f"round_{line['round']:04d}.safetensors"
        path.parent.mkdir(exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in artifacts.items()}
        write_atomically(path, save(tensors))
    with open_own(folder / "rounds.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def _forget_the_end(folder: Path, keep: int) -> None:
    """Delete what a run wrote after so many rounds, and at its end."""
    for artifact in folder.glob("artifacts/round_*"):
        if not artifact.stem[6:].isdigit() or int(artifact.stem[6:]) > keep:
            artifact.unlink()
    for name in (ERROR, *OF_THE_END):
        (folder / name).unlink(missing_ok=True)


def _clear(folder: Path) -> None:
    """Create the folder of a new run, and delete a run that it holds."""
    folder.mkdir(parents=True, exist_ok=True)
    # config.json first: without it nobody could resume the rest.
    for name in ("config.json", "rounds.jsonl", "summary.json", ERROR, *OF_THE_END):
        (folder / name).unlink(missing_ok=True)
    for old in [*folder.glob("artifacts/round_*"), *folder.glob("checkpoint/round_*")]:
        old.unlink()
    shutil.rmtree(folder / "trackers", ignore_errors=True)  # a new run is another one to them


def read_summary(folder: Path) -> dict[str, Any]:
    """Return a run's summary; empty where there is none."""
    return read_object(folder / "summary.json")
