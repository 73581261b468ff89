"""The named studies of `drop reproduce`: grids with the results that are expected of them.

A study is a grid file of `entity/studies/` whose key `study` holds its title, how long it takes,
where its expectations come from, and the expectations: ranges of MTA and ASR in percent for the
cells that a partial assignment names, as `exclude` names cells. The mean over the seeds is
judged, of each run's mean over its last ten evaluated rounds; `worst_asr` is the highest of all
seeds, of the rounds of acceptable MTA. `void` says where an attack does not work at all. A study
of a paper's table has the paper's figures instead (`published.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from entity.config import schema
from entity.config.schema import ConfigError, NonNegative, suggest, unknown
from entity.sweep.grid import SEED, Grid, matches, pattern, refuse_twice
from entity.sweep.grid_file import read
from entity.sweep.published import Percent, Published, published
from entity.sweep.void import Void

UNKNOWN = "no published figure known here"
"""Text for a cell without an expectation."""


@dataclass(frozen=True)
class _ExpectationTable:
    cells: dict[Any, Any]
    mta: tuple[Percent, ...] | None = None
    asr: tuple[Percent, ...] | None = None
    worst_asr: tuple[Percent, ...] | None = None


@dataclass(frozen=True)
class _VoidTable:
    axis: str
    label: str
    below: Percent


@dataclass(frozen=True)
class _StudyTable:
    """The key `study` of the file."""

    title: str
    takes: str
    """How long, where, and whether that was measured."""
    hours: NonNegative | None = None
    source: str = UNKNOWN
    """Where the expectations come from."""
    rows: tuple[str, ...] | None = None
    """Axes that tell the rows of the table apart, where the others follow from them."""
    expect: tuple[_ExpectationTable, ...] = ()
    published: dict[Any, Any] | None = None
    """Figures of a paper's table instead."""
    void: _VoidTable | None = None
    """Which cells count for nobody, as the attack does not work where nobody defends."""
    notes: tuple[str, ...] = ()
    """Sentences below the table: where the study is not quite what the paper says, and why."""


_ROUNDING = 1e-9
"""What a mean of shares may be beside its value in figures."""


@dataclass(frozen=True)
class Band:
    """A range of shares, its ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low - _ROUNDING <= value <= self.high + _ROUNDING

    def __str__(self) -> str:
        """Return it in percent, without an end that every share meets.

        Examples
        --------
        >>> str(Band(0.95, 1.0)), str(Band(0.0, 0.05)), str(Band(0.5, 0.6))
        ('≥ 95', '≤ 5', '50 to 60')
        """
        if self.high == 1:
            return f"≥ {100 * self.low:g}"
        return (
            f"≤ {100 * self.high:g}"
            if self.low == 0
            else f"{100 * self.low:g} to {100 * self.high:g}"
        )


@dataclass(frozen=True)
class Expectation:
    """The ranges that some cells are expected to reach."""

    cells: Mapping[str, tuple[str, ...]]
    mta: Band | None
    asr: Band | None
    worst_asr: Band | None = None


@dataclass(frozen=True)
class Study:
    """A named grid and what is expected of it."""

    name: str
    title: str
    takes: str
    hours: float | None
    """An estimate for all of its runs, for when no finished run can tell."""
    source: str
    grid: Grid
    expectations: tuple[Expectation, ...]
    axes: tuple[str, ...]
    """Those that tell the rows of its table apart."""
    published: Published | None = None
    notes: tuple[str, ...] = ()
    void: Void | None = None

    @property
    def folder(self) -> Path:
        """Its folder below that of all runs: one for all tables of a paper, which share some."""
        return Path(self.name).parent if "/" in self.name else Path(self.name)

    def expectation(self, cell: Mapping[str, str]) -> Expectation | None:
        """Return what is expected of a cell, by its labels."""
        return next((each for each in self.expectations if matches(cell, each.cells)), None)


def names() -> list[str]:
    """Return the shipped studies, the smallest first, and last the tables of a paper."""
    folder = _folder()
    found = [path.relative_to(folder).with_suffix("") for path in sorted(folder.rglob("*.yaml"))]
    order = ("quick", "durability", "laptop", "budget", "configurations", "configurations-cifar10")
    order += ("rivals",)

    def place(name: str) -> tuple[bool, int, str]:
        return "/" in name, order.index(name) if name in order else 9, name

    return sorted((path.as_posix() for path in found), key=place)


def find(name: str) -> Study:
    """Return a shipped study.

    Raises
    ------
    ConfigError
        If there is none of that name.
    """
    if name not in (known := names()):
        hint = suggest(name, known) or f" There are {', '.join(known)}."
        raise ConfigError(f"study {name}: is unknown.{hint}")
    return replace(load(_folder() / f"{name}.yaml"), name=name)


def _folder() -> Path:
    return Path(str(files("entity"))) / "studies"


def load(path: Path) -> Study:
    """Read a study from a grid file.

    Raises
    ------
    ConfigError
        One sentence with the file, the key, and what is allowed.
    """
    grid = read(path)
    try:
        if grid.study is None:
            raise ConfigError("study is missing: it says what is expected of the grid.")
        table = schema.load(_StudyTable, grid.study, "study")
        if table.expect and table.published is not None:
            raise ConfigError("study.expect and study.published: choose one.")
        return Study(
            path.stem,
            table.title,
            table.takes,
            table.hours,
            table.source,
            grid,
            _expectations(table.expect, grid),
            _rows(table.rows, grid),
            None if table.published is None else published(table.published, grid),
            table.notes,
            None if table.void is None else _void(table.void, grid),
        )
    except ConfigError as error:
        raise ConfigError(f"grid {path}: {error}") from error


def _expectations(entries: Sequence[_ExpectationTable], grid: Grid) -> tuple[Expectation, ...]:
    where = "study.expect"
    found = tuple(
        Expectation(
            pattern(each.cells, grid.axes, f"{where}.cells"),
            _band(each.mta, f"{where}.mta"),
            _band(each.asr, f"{where}.asr"),
            _band(each.worst_asr, f"{where}.worst_asr"),
        )
        for each in entries
    )
    for cell in grid.assignments():
        if sum(matches(cell, each.cells) for each in found) > 1:
            said = ", ".join(f"{name}={label}" for name, label in cell.items())
            raise ConfigError(f"{where}: cell {said} is named more than once.")
    for each in entries:
        if each.mta is each.asr is each.worst_asr is None:
            raise ConfigError(
                f"{where}: needs mta, asr or worst_asr: what is expected of its cells."
            )
    return found


def _rows(names: Sequence[str] | None, grid: Grid) -> tuple[str, ...]:
    varied = [axis.name for axis in grid.axes if axis.name != SEED and len(axis.values) > 1]
    for name in names or ():
        if name not in varied:
            raise ConfigError(f"study.rows: axis {unknown(name, name, varied)}")
    refuse_twice(names or (), "study.rows")
    return tuple(names or varied)


def _void(table: _VoidTable, grid: Grid) -> Void:
    pattern({table.axis: table.label}, grid.axes, "study.void")
    return Void(table.axis, table.label, table.below / 100)


def _band(ends: tuple[float, ...] | None, where: str) -> Band | None:
    if ends is None:
        return None
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ConfigError(
            f"{where} = {schema.show(list(ends))}: allowed is [lowest, highest] in percent."
        )
    return Band(ends[0] / 100, ends[1] / 100)
