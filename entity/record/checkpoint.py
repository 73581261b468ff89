"""Checkpoints: what a run keeps from one round to the next, on disk so that no crash harms it.

The tensors of a snapshot go to `round_0010.safetensors`, named by their places in it, everything
else to `round_0010.json`, with the checksums of both files. Each is written aside, flushed to disk
and renamed, the JSON last: a checkpoint is there once its JSON is. The last two are kept, and one
that is damaged is passed over for the one before. Nothing is ever unpickled.

No generator is among what is kept: all are derived from (seed, purpose, round, client).
"""

import hashlib
import json
import logging
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from entity.layout import ModelState
from entity.record.directory import sync_folder, write_aside

log = logging.getLogger("entity")

FOLDER = "checkpoint"
FORMAT = 1


def _nothing() -> Mapping[Any, Any]:
    return {}


@dataclass(frozen=True)
class Snapshot:
    """A run between two rounds: all that the next one depends on beside the config.

    Its tensors are the run's own, which changes none of them in place.
    """

    round: int
    """The last finished round; 0 before the first."""
    state: ModelState
    """The global model."""
    previous: Tensor | None = None
    """(P,) the global weights of the round before; see `Broadcast`."""
    server: Mapping[str, Any] = field(default_factory=_nothing)
    """The defense's `state_dict`."""
    clients: Mapping[int, dict[str, Tensor]] = field(default_factory=_nothing)
    """What clients remember, by id."""
    trigger: Mapping[str, Tensor] = field(default_factory=_nothing)
    """What the colluders of an adaptive poison have learnt."""
    detection: Mapping[str, int] = field(default_factory=_nothing)
    """Counters of refusals so far."""


class Found(NamedTuple):
    """A checkpoint that was read back."""

    snapshot: Snapshot
    origin: dict[str, Any]
    """What run it is of, as it was given to `Checkpoints`."""


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder
        The run directory; None keeps nothing.
    origin
        What run it is: written into every checkpoint.
    every
        Rounds between two that are written; 0 leaves it to `flush`.
    """

    def __init__(self, folder: Path | None, origin: Mapping[str, Any], every: int) -> None:
        self.folder = None if folder is None else folder / FOLDER
        self.origin = origin
        self.every = every
        self._latest: Snapshot | None = None
        self._good = 0
        """Round of the last checkpoint that is known to be whole."""

    def take(self, snapshot: Snapshot) -> None:
        """Hold a snapshot, and write it if that is due."""
        self._latest = snapshot
        if self.every and snapshot.round % self.every == 0:
            self.flush()

    def flush(self) -> None:
        """Write the snapshot held, unless it is on disk already; when this returns it is."""
        snapshot = self._latest
        if self.folder is None or snapshot is None or snapshot.round == self._good:
            return
        self.folder.mkdir(exist_ok=True)
        tree, tensors = pack({**vars(snapshot), "state": snapshot.state._asdict()})
        place = self._place(snapshot.round)
        aside = place.with_name(place.name + ".part")
        save_file(tensors, aside)
        digest = _checksum_of(aside, flush=True)
        aside.replace(place)
        content = {
            "format": FORMAT,
            "origin": self.origin,
            "tensors": digest,
            "snapshot": tree,
        }
        sealed = {"sha256": _checksum(content), "content": content}
        write_aside(place.with_suffix(".json"), json.dumps(sealed).encode())
        sync_folder(self.folder)
        before, self._good = self._good, snapshot.round
        self._forget_all_but({self._good, before})

    def last(self, most: int) -> Found | None:
        """Return the last checkpoint that is whole.

        Parameters
        ----------
        most
            Its round at most: that of the last line of the record.
        """
        if self.folder is None:
            return None
        numbers = [_number(path) for path in self.folder.glob("round_*.json")]
        for number in sorted(numbers, reverse=True):
            place = self._place(number)
            if number > most:
                log.warning("%s passed over: the record ends before", place.with_suffix(".json"))
                continue
            try:
                found = _read(place)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("%s passed over: it is damaged (%s)", place.with_suffix(".json"), error)
                continue
            self._latest, self._good = found.snapshot, number
            return found
        return None

    def _place(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"round_{number:04d}.safetensors"

    def _forget_all_but(self, kept: set[int]) -> None:
        """Delete other checkpoints, JSON first, and what killed processes left half-written."""
        assert self.folder is not None
        for path in sorted(self.folder.glob("round_*")):
            if _number(path) not in kept or path.suffix == ".part":
                path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    found = re.match(r"round_(\d+)\.", path.name)
    return int(found[1]) if found else 0


def _read(place: Path) -> Found:
    """Read one checkpoint; ValueError if it is not as it was written."""
    sealed = json.loads(place.with_suffix(".json").read_bytes())
    content = sealed["content"]
    if _checksum(content) != sealed["sha256"]:
        raise ValueError("its checksum is wrong")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, and {FORMAT} is what can be read")
    if _checksum_of(place) != content["tensors"]:
        raise ValueError(f"the checksum of {place.name} is wrong")
    tree: dict[str, Any] = unpack(content["snapshot"], load_file(place))
    tree["state"] = ModelState(**tree["state"])
    return Found(Snapshot(**tree), content["origin"])


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum_of(path: Path, flush: bool = False) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if flush:
            os.fsync(file.fileno())
    return digest


def pack(state: Any) -> tuple[Any, dict[str, Tensor]]:
    """Part a tree of tables, lists, tensors, numbers and texts into JSON and named tensors.

    Keys are texts or whole numbers, and stay what they are; tuples become lists.

    Raises
    ------
    TypeError
        For anything else in the tree.

    Examples
    --------
    >>> import torch
    >>> tree, tensors = pack({"points": {7: 0.5}, "models": [torch.ones(2)]})
    >>> tree
    {'table': [['points', {'table': [[7, 0.5]]}], ['models', [{'tensor': '/models/0'}]]]}
    >>> tensors
    {'/models/0': tensor([1., 1.])}
    """
    tensors: dict[str, Tensor] = {}
    storages: set[int] = set()

    def packed(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            name = path
            while name in tensors:  # 7 and "7" are two keys, and one may hold a slash
                name += "'"
            own = value.detach().cpu().contiguous()
            memory = own.untyped_storage().data_ptr()
            tensors[name] = own.clone() if memory in storages else own  # safetensors shares none
            storages.add(memory)
            return {"tensor": name}
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"float": str(value)}
        if value is None or isinstance(value, bool | int | str):
            return value
        if isinstance(value, list | tuple):
            return [packed(item, f"{path}/{i}") for i, item in enumerate(value)]
        if isinstance(value, Mapping) and all(isinstance(key, int | str) for key in value):
            return {"table": [[key, packed(item, f"{path}/{key}")] for key, item in value.items()]}
        raise TypeError(f"{path}: a checkpoint cannot hold {type(value).__name__}")

    return packed(state, ""), tensors


def unpack(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Put together again what `pack` parted; every tensor gets memory of its own."""
    if isinstance(tree, list):
        return [unpack(item, tensors) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if "tensor" in tree:
        return tensors[tree["tensor"]].clone()
    if "float" in tree:
        return float(tree["float"])
    return {key: unpack(item, tensors) for key, item in tree["table"]}
