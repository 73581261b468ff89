"""The named studies of `drop reproduce`: grids with the results that are expected of them.

A study is a grid file of `entity/studies/` whose key `study` holds its title, how long it takes,
where its expectations come from, and the expectations: ranges of MTA and ASR in percent for the
cells that a partial assignment names, as `exclude` names cells. The mean over the seeds is
judged, of each run's mean over its last ten evaluated rounds.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

from entity.config import schema
from entity.config.schema import ConfigError, NonNegative, Range, suggest, unknown
from entity.sweep.grid import SEED, Grid, matches, pattern, read

UNKNOWN = "no published figure known here"
"""Text for a cell without an expectation."""

Percent = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class _ExpectationTable:
    cells: dict[Any, Any]
    mta: tuple[Percent, ...] | None = None
    asr: tuple[Percent, ...] | None = None


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


@dataclass(frozen=True)
class Band:
    """A range of shares, its ends included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

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

    def expectation(self, cell: Mapping[str, str]) -> Expectation | None:
        """Return what is expected of a cell, by its labels."""
        return next((each for each in self.expectations if matches(cell, each.cells)), None)


def names() -> list[str]:
    """Return the shipped studies, the smallest first."""
    found = [Path(each.name).stem for each in _folder().iterdir() if each.name.endswith(".yaml")]
    order = ("quick", "laptop")
    return sorted(found, key=lambda name: (order.index(name) if name in order else 9, name))


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
    return load(Path(str(_folder() / f"{name}.yaml")))


def _folder() -> Any:
    return files("entity") / "studies"


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
        return Study(
            path.stem,
            table.title,
            table.takes,
            table.hours,
            table.source,
            grid,
            _expectations(table.expect, grid),
            _rows(table.rows, grid),
        )
    except ConfigError as error:
        raise ConfigError(f"grid {path}: {error}") from error


def _expectations(entries: Iterable[_ExpectationTable], grid: Grid) -> tuple[Expectation, ...]:
    where = "study.expect"
    found = tuple(
        Expectation(
            pattern(each.cells, grid.axes, f"{where}.cells"),
            _band(each.mta, f"{where}.mta"),
            _band(each.asr, f"{where}.asr"),
        )
        for each in entries
    )
    for cell in grid.assignments():
        if sum(matches(cell, each.cells) for each in found) > 1:
            said = ", ".join(f"{name}={label}" for name, label in cell.items())
            raise ConfigError(f"{where}: cell {said} is named more than once.")
    return found


def _rows(names: Sequence[str] | None, grid: Grid) -> tuple[str, ...]:
    varied = [axis.name for axis in grid.axes if axis.name != SEED and len(axis.values) > 1]
    for name in names or ():
        if name not in varied:
            raise ConfigError(f"study.rows: axis {unknown(name, name, varied)}")
    return tuple(names or varied)


def _band(ends: tuple[float, ...] | None, where: str) -> Band | None:
    if ends is None:
        return None
    if len(ends) != 2 or ends[0] > ends[1]:
        raise ConfigError(
            f"{where} = {schema.show(list(ends))}: allowed is [lowest, highest] in percent."
        )
    return Band(ends[0] / 100, ends[1] / 100)
