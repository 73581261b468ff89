"""Checkpoints: the state of a run between two rounds, on disk so that a crash loses little.

The tensors of a snapshot go to `round_0010.safetensors`, named by their paths in it, everything
else to `round_0010.json`, with the checksums of both files. Each is written under another name,
flushed to disk and renamed, the JSON last: a checkpoint exists once its JSON does. The last two are
kept, and a damaged one is passed over for the one before. Nothing is ever unpickled.

No random generator is stored: all are derived from (seed, purpose, round, client).
"""

import errno
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor

from entity.layout import ModelState
from entity.reading import PRINTABLE_DIGITS, open_regular, parse_json, read_bytes
from entity.record.atomic import sync_folder, write_atomically
from entity.record.packing import pack, unpack

log = logging.getLogger("entity")

FOLDER = "checkpoint"
FORMAT = 1


@dataclass(frozen=True)
class Snapshot:
    """The state of a run between two rounds: with the config, all that the next round depends on.

    Its tensors are also used by the run, which changes none of them in place.
    """

    round: int
    """The last finished round; 0 before the first."""
    state: ModelState
    """The global model."""
    previous: Tensor | None = None
    """(P,) the global weights of the round before; see `Broadcast`."""
    server: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """The defense's `state_dict`."""
    clients: Mapping[int, dict[str, Tensor]] = field(default_factory=dict[int, dict[str, Tensor]])
    """State that clients keep, by id."""
    trigger: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """The trigger that the colluders of an adaptive poison have learnt."""
    colluders: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """What the colluders of an attack keep from round to round."""
    detection: Mapping[str, int] = field(default_factory=dict[str, int])
    """The counters of `metrics.Detection` so far."""


class Checkpoint(NamedTuple):
    """A checkpoint that was read back."""

    snapshot: Snapshot
    origin: dict[str, Any]
    """The run that it belongs to, as it was given to `Checkpoints`."""


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder
        The run directory; None keeps nothing.
    origin
        Identifies the run; written into every checkpoint.
    every
        Rounds between two checkpoints; with 0 only `flush` writes one.
    """

    def __init__(self, folder: Path | None, origin: Mapping[str, Any], every: int) -> None:
        self.folder = None if folder is None else folder / FOLDER
        self.origin = origin
        self.every = every
        self._latest: Snapshot | None = None
        self._good = 0
        """Round of the last checkpoint that is known to be intact."""

    def take(self, snapshot: Snapshot) -> None:
        """Hold a snapshot, and write it if one is due."""
        self._latest = snapshot
        if self.every and snapshot.round % self.every == 0:
            self.flush()

    def flush(self) -> None:
        """Write the snapshot held to disk, unless it is there already.

        Raises
        ------
        OSError
            If that cannot be done; the checkpoints before are what they were.
        """
        snapshot = self._latest
        if self.folder is None or snapshot is None or snapshot.round == self._good:
            return
        self.folder.mkdir(exist_ok=True)
        tree, tensors = pack({**vars(snapshot), "state": snapshot.state._asdict()})
        path = self._path(snapshot.round)
        part = path.with_name(path.name + ".part")
        try:
            save_file(tensors, part)
            digest = _checksum_of(part, flush=True)
            part.replace(path)
        except (OSError, SafetensorError) as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise _as_os_error(error, part) from error
        content = {
            "format": FORMAT,
            "origin": self.origin,
            "tensors": digest,
            "snapshot": tree,
        }
        sealed = {"sha256": _checksum(content), "content": content}
        write_atomically(path.with_suffix(".json"), json.dumps(sealed).encode())
        sync_folder(self.folder)
        before, self._good = self._good, snapshot.round
        self._delete_all_but({self._good, before})

    def numbers(self) -> set[int]:
        """Return the rounds of which there is any file, whole or not."""
        files = [] if self.folder is None else self.folder.glob("round_*")
        return {_number(path) for path in files if path.suffix in (".json", ".safetensors")}

    def sealed(self) -> set[int]:
        """Return the rounds whose checkpoints were written to the end, damaged since or not."""
        files = [] if self.folder is None else self.folder.glob("round_*.json")
        return {_number(path) for path in files}

    def last(self, most: int | None = None) -> Checkpoint | None:
        """Return the last checkpoint that is intact, of round `most` or before.

        `most` is the round of the last line of the record; None takes what there is.
        """
        for number in sorted(self.sealed(), reverse=True):
            path = self._path(number)
            if most is not None and number > most:
                log.warning("%s passed over: the record ends before", path.with_suffix(".json"))
                continue
            try:
                checkpoint = _read(path)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                log.warning("%s passed over: it is damaged (%s)", path.with_suffix(".json"), error)
                continue
            self._latest, self._good = checkpoint.snapshot, number
            return checkpoint
        return None

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"round_{number:04d}.safetensors"

    def _delete_all_but(self, kept: set[int]) -> None:
        """Delete the other checkpoints, JSON first, and half-written ones of killed processes."""
        assert self.folder is not None
        for path in sorted(self.folder.glob("round_*")):
            if _number(path) not in kept or path.suffix == ".part":
                path.unlink(missing_ok=True)


def _as_os_error(error: Exception, path: Path) -> OSError:
    """Return what the operating system said; safetensors has it in its text alone."""
    if isinstance(error, OSError):
        return error
    found = re.search(r"os error (\d+)", str(error))
    number = int(found[1]) if found else errno.EIO
    return OSError(number, os.strerror(number) if found else str(error), str(path))


def _number(path: Path) -> int:
    found = re.match(r"round_(\d+)\.", path.name)
    return int(found[1]) if found else 0


def _read(path: Path) -> Checkpoint:
    """Read one checkpoint; ValueError if it is not as it was written."""
    written = read_bytes(path.with_suffix(".json"))
    sealed = parse_json(written, most_digits=PRINTABLE_DIGITS)  # a defense may have counted long
    content = sealed["content"]
    if _checksum(content) != sealed["sha256"]:
        raise ValueError("its checksum is wrong")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']}, and {FORMAT} is what can be read")
    if _checksum_of(path) != content["tensors"]:
        raise ValueError(f"the checksum of {path.name} is wrong")
    tree: dict[str, Any] = unpack(content["snapshot"], _tensors(path))
    tree["state"] = ModelState(**tree["state"])
    return Checkpoint(Snapshot(**tree), content["origin"])


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # safetensors opens no path that is not UTF-8
        return load(read_bytes(path))
    return load_file(path)


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _checksum_of(path: Path, flush: bool = False) -> str:
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if flush:
            os.fsync(file.fileno())
    return digest
