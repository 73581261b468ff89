"""From a grid to experiments: every cell resolved, checked and named before anything runs."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, flatten
from entity.dataset import DATASETS
from entity.experiment import settled
from entity.results import store
from entity.results.classes import labelled
from entity.results.store import Run
from entity.setup import resolve
from entity.setup.effect import blanked
from entity.setup.plugins import Sent, rebuilt, use
from entity.setup.resolve import PLUGINS
from entity.sweep.bases import Bases
from entity.sweep.grid import CONFIG, SEED, Axis, Grid, Value

_ALONE = {"settings.engine": "inline", "settings.num_threads": "1"}
"""A cell is a process of one thread, unless the grid itself says otherwise."""


@dataclass(frozen=True)
class Cell:
    """One experiment of a sweep."""

    labels: Mapping[str, str]
    """The value of every axis, by its name."""
    config: ExperimentConfig
    identity: str
    folder: Path
    """Its run directory, made or not."""
    done: Run | None
    """The run that the folder holds already, if any."""
    out: Path
    """Folder of the sweep."""
    others: tuple[Mapping[str, str], ...] = ()
    """More values of the axes that come to the same experiment, as an axis may do nothing."""

    def __reduce__(self) -> tuple[Any, ...]:
        return rebuilt, (Sent(self.config.plugins), type(self), dict(vars(self)))

    @property
    def every_labels(self) -> tuple[Mapping[str, str], ...]:
        """Values of the axes that come to this experiment."""
        return (self.labels, *self.others)

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.config.name or ""

    @property
    def state(self) -> str:
        """Say `finished`, `failed`, `interrupted` or `new`."""
        if self.done is None:
            return "new"
        said = str(self.done.facts["state"])
        return said if said in ("finished", "failed") else "interrupted"

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the values that conditions can name, for each of its labels.

        An axis goes before a field of its name.
        """
        facts = {
            "name": self.name,
            "defense": self.config.server.defense.type,
            "attack": self.config.client.attacked_by,
            "state": self.state,
        }
        fields = blanked(dict(flatten(resolve.to_json(self.config))))
        common = labelled(fields, self.folder) | facts
        return [common | dict(labels) for labels in self.every_labels]


def expand(
    grid: Grid, out: Path, assignments: Iterable[dict[str, str]] | None = None
) -> list[Cell]:
    """Return the cells in the order in which they run.

    Cells that come to the same experiment are one. A field that does nothing in a cell, such as
    the share of poisoned data without an attack, is left out there, so that such cells are one,
    too; one that does nothing in any cell of the grid is refused. Runs that `out` holds already
    are found by their identity, whatever they are called.

    Parameters
    ----------
    grid
        The checked grid file.
    out
        Folder of the run directories.
    assignments
        The label of each axis, for the cells to return; None for all that are not excluded.

    Raises
    ------
    ConfigError
        Naming the first cell that is no possible experiment, or the field without effect.
    """
    found, labelled_by = _experiments(grid, assignments)
    runs = _runs_by_identity(out)
    taken = {run.path.resolve() for run in runs.values()}
    cells: list[Cell] = []
    for identity, config in found.items():
        done = runs.get(identity)
        folder = out / f"{config.name}-{identity[:8]}"
        if done is None and folder.resolve() in taken:  # eight digits met another run's
            folder = out / f"{config.name}-{identity}"
        labels, *others = labelled_by[identity]
        place = done.path if done else folder
        cells.append(Cell(labels, config, identity, place, done, out, tuple(others)))
    return cells


def _experiments(
    grid: Grid, assignments: Iterable[dict[str, str]] | None
) -> tuple[dict[str, ExperimentConfig], dict[str, list[dict[str, str]]]]:
    """Return the experiments, and the labels that come to each, by identity."""
    use(grid.plugins)  # fields of the bases may be theirs
    bases, effects = Bases(grid), _Effects()
    found: dict[str, ExperimentConfig] = {}
    labelled_by: dict[str, list[dict[str, str]]] = {}
    refused: list[str] = []
    for labels in grid.assignments() if assignments is None else assignments:
        try:
            config = _experiment(grid, bases, labels, effects)
        except ConfigError as error:
            said = ", ".join(f"{name}={label}" for name, label in labels.items())
            refused.append(f"cell {said or 'of the base'}: {error}")
        else:
            same = found.setdefault(identity := resolve.identity(config), config)
            _refuse_other_data(same, config, grid.said)
            labelled_by.setdefault(identity, []).append(labels)
    if refused:
        more = f" (Cells that are refused: {len(refused)}.)" if len(refused) > 1 else ""
        raise ConfigError(f"{grid.said}: {refused[0]}{more}")
    if assignments is None:
        effects.refuse(grid)
    return found, labelled_by


def _refuse_other_data(one: ExperimentConfig, other: ExperimentConfig, where: str) -> None:
    """Refuse two cells of one name of data in two folders: their runs would be taken for one."""
    places = [config.settings.datasets_path for config in (one, other)]
    if one.dataset not in DATASETS and places[0] != places[1]:
        raise ConfigError(
            f"{where}: settings.datasets_path = {places[1]}: a run is known by the name of its "
            f"data, {one.dataset}, which are in {places[0]}, too; give them another name, or each "
            "a sweep of its own."
        )


def labels_by_identity(grid: Grid) -> dict[str, list[dict[str, str]]]:
    """Return the labels of all axes that come to each experiment of a grid, by its identity.

    Raises
    ------
    ConfigError
        As `expand`.
    """
    return _experiments(grid, None)[1]


def as_it_is_now(cell: Cell) -> Cell:
    """Return a cell with the run of it that the folder of the sweep holds by now.

    Another sweep may have begun it since, under another name if its grid is another one.
    """
    found: list[Run] = []
    for folder in (cell.folder, *sorted(cell.out.glob(f"*-{cell.identity[:8]}*"))):
        if (folder / "config.json").is_file():
            run = store.read_row(folder)
            found += [run] if run.facts["hash"] == cell.identity else []
    run = next((each for each in found if each.finished), found[0] if found else None)
    return cell if run is None else replace(cell, folder=run.path, done=run)


def as_they_are_now(grid: Grid, folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return some cells of a grid with the runs that a folder holds by now, and their floors."""
    assignments = [dict(labels) for cell in cells for labels in cell.every_labels]
    return expand(grid, folder, assignments)


def of_acceptable_rounds(cells: Sequence[Cell], mta_at_least: float) -> list[Cell]:
    """Return some cells with the worst ASR of the rounds that have at least this MTA."""
    return [
        replace(cell, done=store.of_acceptable_rounds([cell.done], mta_at_least)[0])
        if cell.done
        else cell
        for cell in cells
    ]


def finite_facts(cells: Sequence[Cell], name: str) -> list[float]:
    """Return one figure of the finished cells that have it as a finite number."""
    return [
        value
        for cell in cells
        if cell.done is not None and cell.done.finished
        if isinstance(value := cell.done.facts.get(name), float) and math.isfinite(value)
    ]


def _experiment(
    grid: Grid, bases: Bases, labels: Mapping[str, str], effects: "_Effects"
) -> ExperimentConfig:
    overrides: dict[str, str] = {}
    for axis in grid.axes:
        overrides.update(_value(axis, labels).overrides)
    base = overrides.pop(CONFIG, None)
    tables = bases[base]
    own = {name.rsplit(".", 1)[-1] for name in overrides}
    if isinstance(grid.base, dict) and base is None:
        settings = grid.base.get("settings")
        own |= set(settings if isinstance(settings, dict) else ())
    alone = [(name, text) for name, text in _ALONE.items() if name.split(".")[1] not in own]
    plugins = [(PLUGINS, json.dumps(grid.plugins))] if grid.plugins else []
    config, idle = resolve.without_idle(tables, [*plugins, *overrides.items(), *alone])
    effects.note(overrides, idle)
    return settled(replace(config, name=_name(grid, labels, config, idle)))


def _value(axis: Axis, labels: Mapping[str, str]) -> Value:
    return next(value for value in axis.values if value.label == labels[axis.name])


class _Effects:
    """Which fields of a grid do something in some cell."""

    def __init__(self) -> None:
        self.effective: set[str] = set()
        self.idle: dict[str, str] = {}
        """The first refusal of each that does nothing in some cell."""

    def note(self, given: Iterable[str], idle: Mapping[str, str]) -> None:
        """Take down a cell."""
        self.effective.update(name for name in given if name not in idle)
        self.idle = {**idle, **self.idle}

    def refuse(self, grid: Grid) -> None:
        """Refuse a field that does nothing in any cell.

        Raises
        ------
        ConfigError
            Naming its axis, and what it needs.
        """
        for axis in grid.axes:
            for name in sorted((axis.fields & set(self.idle)) - self.effective):
                raise ConfigError(f"{grid.said}: axes.{axis.name}: {self.idle[name]}")


def _runs_by_identity(out: Path) -> dict[str, Run]:
    runs: dict[str, Run] = {}
    for run in store.collect([out]) if out.is_dir() else ():
        identity = str(run.facts["hash"])
        if identity not in runs or run.finished:
            runs[identity] = run
    return runs


def _name(
    grid: Grid, labels: Mapping[str, str], config: ExperimentConfig, idle: Mapping[str, str]
) -> str:
    """Return a name of what sets this cell apart, such as `median-dba-DPR0.5-seed1`.

    The tables of a paper lie in one folder, so what is the same in one of them tells it apart.
    """
    parts = [config.name] if config.name else []
    varied = grid.varied
    if "published" in (grid.study or {}):
        varied = [axis for axis in grid.axes if axis.name != SEED and not axis.fields <= {"name"}]
    varied = [axis for axis in varied if not _is_idle(_value(axis, labels), idle)]
    parts += [_part(axis, labels[axis.name]) for axis in varied]
    if not parts:
        return resolve.default_name(config)
    text = "-".join(re.sub(r"[^A-Za-z0-9_.+]+", "-", part).strip("-.") for part in parts)
    return f"{text[:100].strip('-.')}-seed{config.settings.seed}".lstrip("-")


def _is_idle(value: Value, idle: Mapping[str, str]) -> bool:
    return bool(value.overrides) and all(name in idle for name in value.overrides)


def _part(axis: Axis, label: str) -> str:
    if axis.name == CONFIG and not axis.bundled:
        stems = [Path(value.label).stem for value in axis.values]
        return Path(label).stem if len(set(stems)) == len(stems) else label
    if axis.bundled or (label[:1].isalpha() and label not in ("null", "true", "false")):
        return label[:40]
    short = axis.name.rsplit(".", 1)[-1]
    return f"{short}{'-' if label[:1].isalpha() else ''}{label[:40]}"
