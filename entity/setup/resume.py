"""Going on with a run: which one a folder holds, and what may be different from here on."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from entity import __version__
from entity.config.fields import APPROXIMATE, RUNTIME_SETTINGS, ExperimentConfig
from entity.config.schema import ConfigError, join, show
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.directory import whole_lines
from entity.setup import resolve

log = logging.getLogger("entity")

_ROUNDS = "federation.rounds"
_MAY_CHANGE = {_ROUNDS, *(f"settings.{name}" for name in RUNTIME_SETTINGS)}
_ABSENT = "absent"


def recorded(folder: Path, overrides: Sequence[tuple[str, str | None]] = ()) -> ExperimentConfig:
    """Return the config that a run directory holds, with overrides as on the command line.

    Raises
    ------
    ConfigError
        If the folder holds no run, or a field cannot be overridden.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"--resume {folder}: holds no run, as it has no config.json.")
    before = resolve.experiment(resolve.read(path))
    return _continued(before, resolve.experiment(resolve.read(path), overrides), folder)


def continued(config: ExperimentConfig, folder: Path) -> ExperimentConfig:
    """Return the config that a run goes on with, complete.

    Raises
    ------
    ConfigError
        If the folder holds no run, or that of another experiment.
    """
    before = recorded(folder)
    threads = config.settings.num_threads or before.settings.num_threads
    settings = replace(config.settings, num_threads=threads)
    name = config.name or before.name
    return _continued(before, replace(config, settings=settings, name=name), folder)


def _continued(
    before: ExperimentConfig, config: ExperimentConfig, folder: Path
) -> ExperimentConfig:
    for path, old, new in _differences(resolve.to_json(before), resolve.to_json(config)):
        if path == _ROUNDS and new < old:
            raise ConfigError(
                f"{path} = {new}: the run in {folder} was begun with {old}; one that goes on may "
                "have more, not less."
            )
        if not _may_change(path, old, new):
            raise ConfigError(
                f"{path} = {show(new)}: the run in {folder} was begun with {show(old)} and goes "
                f"on with it; only a larger {_ROUNDS} and the settings "
                f"{', '.join(RUNTIME_SETTINGS)} may be new."
            )
    return config


def _may_change(path: str, old: object, new: object) -> bool:
    """Whether a run that goes on may have another value; not where its last bits would change."""
    name = path.removeprefix("settings.")
    return path in _MAY_CHANGE and APPROXIMATE.get(name, _ABSENT) not in (old, new)


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, old value, new value) of what is not the same."""
    for name in dict.fromkeys([*new, *old]):
        one, other, path = old.get(name, _ABSENT), new.get(name, _ABSENT), join(where, name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, path)
        elif one != other:
            yield path, one, other


def origin(config: ExperimentConfig, data: str) -> dict[str, Any]:
    """Return what a checkpoint notes of where it comes from: config, versions, hash of the data."""
    return {
        "config": resolve.to_json(config),
        "data": data,
        "versions": {"drop-fl": __version__, "torch": torch.__version__},
    }


def take_up(checkpoints: Checkpoints, folder: Path) -> Snapshot | None:
    """Return the snapshot that a run goes on from; None if it starts again from round 1.

    Raises
    ------
    ConfigError
        If the config or the data are no longer those that the checkpoint was made with.
    """
    lines = len(whole_lines(folder))
    found = checkpoints.last(lines)
    if found is None:
        log.info("%s holds no checkpoint: starting again from round 1", folder)
        return None
    snapshot, before = found
    now = checkpoints.origin
    for path, old, new in _differences(before["config"], now["config"]):
        # A field that one side lacks came or went with another version of the code.
        kept = path == "name" or _may_change(path, old, new)
        if not kept and _ABSENT not in (old, new):
            raise ConfigError(
                f"{folder / 'config.json'}: {path} = {show(new)}, but the run was begun with "
                f"{show(old)}; put that back."
            )
    if before["data"] != now["data"]:
        raise ConfigError(
            f"{folder}: the data is not what the run was begun with; give it the old by "
            "--datasets_path, or begin a new run."
        )
    for name, version in now["versions"].items():
        if before["versions"].get(name) != version:
            log.warning(
                "%s is %s, and was %s when the run was stopped: what follows may differ from a "
                "run that never was",
                *(name, version, before["versions"].get(name)),
            )
    log.info("going on after round %d", snapshot.round)
    return snapshot
