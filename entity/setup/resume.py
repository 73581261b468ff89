"""Resuming a run: which one a folder holds, and which fields may change."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from entity import __version__
from entity.config.fields import (
    APPROXIMATE,
    OF_VECTORIZED,
    RUNTIME_SETTINGS,
    WITHOUT_EFFECT,
    ExperimentConfig,
)
from entity.config.paths import user_path
from entity.config.schema import ConfigError, flatten, join, show
from entity.defenses import DEFENSES
from entity.layout import ModelState
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.directory import NoRun, read_summary
from entity.record.rounds import of_a_run, whole_lines
from entity.setup import resolve
from entity.setup.identity import REVISED, revisions
from entity.setup.named_files import contents, gone
from entity.setup.plugin_files import is_path, split
from entity.setup.plugins import relocated
from entity.setup.read import extended, read_file

log = logging.getLogger("entity")

_ROUNDS = "federation.rounds"
_MAY_CHANGE = {_ROUNDS, *WITHOUT_EFFECT, *(f"settings.{name}" for name in RUNTIME_SETTINGS)}
_ABSENT = "absent"
_FILES = ("plugins", "initial")
"""Fields that name files with their hashes."""


def recorded(folder: Path | str, overrides: Sequence[tuple[str, object]] = ()) -> ExperimentConfig:
    """Return the config that a run directory holds, with overrides as on the command line.

    A file that has moved (a plugin, a start model, a trigger) may be named anew: what counts is
    what it holds.

    Raises
    ------
    NoRun
        If the folder holds no run.
    ConfigError
        If a field cannot be overridden.
    """
    folder = user_path(folder)
    tables = recorded_tables(folder, resolve.named_plugins(overrides))
    config = resolve.experiment(tables, overrides)
    return _continued(_begun(tables, config), config, folder)


def recorded_tables(
    folder: Path, named: Iterable[object], option: str = "--config"
) -> dict[str, Any]:
    """Return the fields that a run directory holds.

    Parameters
    ----------
    folder
        The run directory.
    named
        Plugins that are named anew, where they lie now.
    option
        Where the user named the folder, for messages.

    Raises
    ------
    NoRun
        If the folder holds no run.
    ConfigError
        If its configuration cannot be read, or a plugin is not what it was.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise NoRun(folder)
    return extended(relocated(read_file(path, option), named), path, f"{option} {path}")


def continued(config: ExperimentConfig, folder: Path | None) -> ExperimentConfig:
    """Return the config with which a run goes on, completed from the recorded one.

    Raises
    ------
    NoRun
        If the folder holds no run.
    ConfigError
        If the folder holds a run of another experiment.
    """
    if folder is None:
        raise ConfigError("resume: needs the folder of the run.")
    before = _begun(recorded_tables(folder, config.plugins), config)
    threads = config.settings.num_threads or before.settings.num_threads
    settings = replace(config.settings, num_threads=threads)
    name = config.name or before.name
    return _continued(before, replace(config, settings=settings, name=name), folder)


def _begun(tables: dict[str, Any], config: ExperimentConfig) -> ExperimentConfig:
    """Return the recorded config; a file of an attack that is gone is where `config` has it.

    Whether that one holds the same is for `resumed` to see.
    """
    now = resolve.to_json(config)
    lost, found = gone(tables), contents(now)
    moved = [(path, new) for path, new in flatten(now) if path in lost and path in found]
    return resolve.experiment(tables, moved)


def _continued(
    before: ExperimentConfig, config: ExperimentConfig, folder: Path
) -> ExperimentConfig:
    for path, old, new in _differences(resolve.to_json(before), resolve.to_json(config)):
        if path == _ROUNDS and new < old:
            raise ConfigError(
                f"{path} = {new}: the run in {folder} was begun with {old}; one that goes on may "
                "have more, not less."
            )
        defense = before.server.defense
        if path == _ROUNDS and DEFENSES[defense.type].looks_ahead(defense.defense_args):
            raise ConfigError(
                f"{path} = {new}: what {defense.type} does depends on the number of rounds, with "
                f"these settings, and the run in {folder} was begun with {old}; begin a new run."
            )
        if not _may_change(path, old, new, config.settings.engine):
            raise ConfigError(
                f"{path} = {show(new)}: the run in {folder} was begun with {show(old)} and goes "
                f"on with it; only a larger {_ROUNDS} and the settings "
                f"{', '.join(RUNTIME_SETTINGS)} may be new."
            )
    return config


class FinishedRun(NamedTuple):
    """A run that has all its rounds, as its folder holds it."""

    rounds: list[dict[str, Any]]
    summary: dict[str, Any]
    state: ModelState | None
    """The final global model; None without a checkpoint of the last round."""


def finished_run(config: ExperimentConfig, folder: Path | None) -> FinishedRun | None:
    """Return the run that a folder holds if it has all its rounds."""
    if folder is None:
        return None
    rounds = [json.loads(line) for line in whole_lines(folder, of_a_run)]
    summary = read_summary(folder)
    if summary.get("state") != "finished" or len(rounds) != config.federation.rounds:
        return None
    log.info("%s is finished: it has all of its %d rounds", folder, len(rounds))
    checkpoint = Checkpoints(folder, {}, 0).last(len(rounds))
    if checkpoint is None or checkpoint.snapshot.round < len(rounds):
        return FinishedRun(rounds, summary, None)
    return FinishedRun(rounds, summary, checkpoint.snapshot.state)


def _may_change(path: str, old: object, new: object, engine: str) -> bool:
    """Whether a field may change on resuming; not where the last bits of the result would."""
    if path == "plugins" and not old:  # an earlier version did not record the module of a model
        return isinstance(new, list | tuple) and not any(is_path(str(each)) for each in new)
    name = path.removeprefix("settings.")
    if engine == "vectorized" and name in OF_VECTORIZED:
        return False
    return path in _MAY_CHANGE and APPROXIMATE.get(name, _ABSENT) not in (old, new)


def _gained_hashes(old: object, new: object) -> bool:
    """Whether plugins differ in nothing but that packages, with their versions, now have hashes."""
    if not isinstance(old, list | tuple) or not isinstance(new, list | tuple):
        return False
    before, now = map(str, old), map(str, new)
    return _held([*before]) == _held(
        [split(each)[0] if "==" in each and split(each)[0] in old else each for each in now]
    )


def _differences(
    old: Mapping[str, Any], new: Mapping[str, Any], where: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted path, old value, new value) of the fields that differ."""
    for name in dict.fromkeys([*new, *old]):
        before, now, path = old.get(name, _ABSENT), new.get(name, _ABSENT), join(where, name)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            yield from _differences(before, now, path)
        elif before != now and not (path in _FILES and _held(before) == _held(now)):
            yield path, before, now


def _held(entries: object) -> object:
    """Return the hashes of recorded files, wherever they lie."""
    listed = entries if isinstance(entries, list | tuple) else [entries]
    marked = [split(each) if isinstance(each, str) else (each, None) for each in listed]
    return sorted(str(digest or name) for name, digest in marked)  # the order is of their places


def origin(config: ExperimentConfig, data: str) -> dict[str, Any]:
    """Return what a checkpoint records of its run: config, revisions, hashes of data, versions."""
    tables = resolve.to_json(config)
    return {
        "config": tables,
        **revisions(tables),
        "data": data,
        "contents": contents(tables),
        "versions": {"drop-fl": __version__, "torch": torch.__version__},
    }


def resumed(checkpoints: Checkpoints, folder: Path) -> Snapshot | None:
    """Return the snapshot from which a run goes on; None if it starts again from round 1.

    Raises
    ------
    ConfigError
        If the config, the data or the revision of a method are no longer those of the checkpoint.
    """
    checkpoint = checkpoints.last(len(whole_lines(folder, of_a_run)))
    if checkpoint is None:
        log.info("%s holds no checkpoint: starting again from round 1", folder)
        return None
    snapshot, before = checkpoint
    now = checkpoints.origin
    for path, old, new in _differences(before["config"], now["config"]):
        # A field that one side lacks came or went with another version of the code.
        allowed = path == "name" or _may_change(path, old, new, now["config"]["settings"]["engine"])
        allowed = allowed or path in before.get("contents", {})  # compared below
        if path == "plugins" and _gained_hashes(old, new):
            allowed = True
            log.warning(
                "%s was begun by a version that did not record the code of packages: whether that "
                "of %s is the same is not known",
                *(folder, ", ".join(map(str, old))),
            )
        if not allowed and _ABSENT not in (old, new):
            raise ConfigError(
                f"{folder / 'config.json'}: {path} = {show(new)}, but the run was begun with "
                f"{show(old)}; put that back."
            )
    for path, name in flatten(now["config"]):
        if path in REVISED:
            old, new = (each.get(REVISED[path].key, 1) for each in (before, now))
            if old != new:
                raise ConfigError(
                    f"{folder}: begun with revision {old} of {name}, and this version has revision "
                    f"{new}, which gives other numbers; begin a new run."
                )
    if before["data"] != now["data"]:
        raise ConfigError(
            f"{folder}: the data is not what the run was begun with; set settings.datasets_path to "
            "the old data, or begin a new run."
        )
    for path, digest in before.get("contents", now["contents"]).items():
        if now["contents"].get(path) != digest:
            raise ConfigError(
                f"{folder}: what {path} names has changed since the run was begun; put it back, or "
                "begin a new run."
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
