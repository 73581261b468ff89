"""`initial`: the trained model that the first round starts from.

As attacks on converged models are studied: the federation has learnt its task, and is attacked from
there, in one round or some. A file of a `state_dict` in safetensors, or the folder of a finished
run, whose final global model it is. The record has the file's hash, which is what makes a part of
the run's identity, wherever the file lies.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors

from entity.config.fields import ExperimentConfig
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.layout import ModelState
from entity.reading import read_bytes
from entity.setup.plugin_files import MARK, show_name, split
from entity.setup.roster import Roster

log = logging.getLogger("entity")

MODEL = "model.safetensors"
"""The final global model in the folder of a run."""

MOST_BYTES = 1 << 33
"""Size of a model's file."""


def located_model(entry: str | None) -> str | None:
    """Return `initial` as a resolved experiment has it: an absolute path and the file's hash.

    Parameters
    ----------
    entry
        A file, the folder of a run, or the name of a shipped model, such as mnist5k/converged-1.

    Raises
    ------
    ConfigError
        If there is no such file, or it is not what its hash says.

    Examples
    --------
    >>> located_model(None)
    """
    if entry is None:
        return None
    name, expected = split(entry)
    path = user_path(name)
    if os.path.isdir(path):
        path /= MODEL
        if not os.path.isfile(path):
            raise ConfigError(
                f"initial = {show_name(name)}: holds no {MODEL}, as a run that is finished does."
            )
    if not os.path.isfile(path) and os.path.isfile(own := Path(f"{_folder(name)}.safetensors")):
        path = own
    if not os.path.isfile(path):
        if expected is not None and path.is_absolute():
            return entry  # the nodes of a federation do not need it, only its server
        raise ConfigError(
            f"initial = {show_name(name)}: there is no such file; allowed is a .safetensors file, "
            "the folder of a finished run, or null."
        )
    status = path.stat()
    digest = _sha256(str(path), status.st_size, status.st_mtime_ns)
    if expected not in (None, digest):
        raise ConfigError(
            f"initial = {show_name(str(path))}: has changed since it was recorded; put it back, or "
            "begin a new run."
        )
    return f"{os.path.abspath(path)}{MARK}{digest}"


def _folder(name: str) -> Path:
    return shipped(name).with_suffix("")


@lru_cache(maxsize=64)
def _sha256(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def initial_model(config: ExperimentConfig, roster: Roster) -> ModelState | None:
    """Return the model that `initial` names; None where it is null.

    Parameters
    ----------
    config
        The experiment.
    roster
        The clients, for the model's layout.

    Raises
    ------
    ConfigError
        If the file cannot be read, or holds a model of another kind.
    """
    if config.initial is None:
        return None
    name, expected = split(config.initial)
    content = b""
    try:
        content = read_bytes(Path(name), MOST_BYTES)
        if expected not in (None, hashlib.sha256(content).hexdigest()):
            raise _refusal(name, "has changed since it was recorded; put it back")
        tensors = read_tensors(content)
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        why = getattr(error, "strerror", None) or " ".join(str(error).split())[:100]
        moved = isinstance(error, FileNotFoundError)
        remedy = "; if it has moved, say where to by --initial" if moved else ""
        if content.startswith((b"PK", b"\x80")):  # a zip, or a pickle: of torch.save
            remedy = (
                "; if torch.save wrote it, make one by safetensors.torch.save_file(torch.load("
                f'"{Path(name).name}", weights_only=True), "{Path(name).stem}.safetensors")'
            )
        raise _refusal(name, f"cannot be read as safetensors ({why}){remedy}") from error
    model = roster.new_model()
    state = model.state_dict()
    wanted = {key: each for key, each in state.items() if isinstance(each, torch.Tensor)}
    if why := _difference(tensors, wanted, config.model):
        raise _refusal(name, why)
    model.load_state_dict(tensors, strict=len(wanted) == len(state))
    return roster.spec.flatten(model)


def _difference(
    tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor], model: str
) -> str:
    """Say why tensors cannot be the state of a model; "" if they can."""
    other = f"is of another model than {model}: it"
    for key in dict.fromkeys([*wanted, *tensors]):
        if key not in tensors:
            return f"{other} has no {key}{_prefixed(tensors, wanted)}"
        if key not in wanted:
            return f"{other} has {key}, which that has not"
        found, like = tensors[key], wanted[key]
        if like.shape != found.shape:
            return f"{other} has {key} of shape {tuple(found.shape)}, not {tuple(like.shape)}"
        if found.dtype != like.dtype and not (
            found.is_floating_point() and like.is_floating_point()
        ):
            return f"has {key} of {_short(found.dtype)}; it must be of {_short(like.dtype)}"
        if like.is_floating_point() and not bool(torch.isfinite(found.to(like.dtype)).all()):
            return f"holds a model that is not finite, in {key}"
    if cast := {_short(t.dtype) for key, t in tensors.items() if t.dtype != wanted[key].dtype}:
        log.warning("initial: its %s numbers are taken as float32", " and ".join(sorted(cast)))
    return ""


def _prefixed(tensors: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> str:
    """Say what to leave out where all names have a part before those that are wanted."""
    for prefix, by in (
        ("module.", "nn.DataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("model.", "Lightning"),
    ):
        if {key.removeprefix(prefix) for key in tensors} == {*wanted}:
            return f"; all its names begin with {prefix}, as of {by}: save them without that"
    return ""


def _short(kind: torch.dtype) -> str:
    return str(kind).removeprefix("torch.")


def _refusal(name: str, why: str) -> ConfigError:
    return ConfigError(f"initial = {show_name(name)}: {why}.")


__all__ = ["initial_model", "located_model"]
