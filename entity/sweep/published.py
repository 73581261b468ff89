"""Figures of a paper for the cells of a study, which are judged within a tolerance.

Key `published` of a study: `columns` names the axis whose labels the lists are in the order of,
`rows` those by which the tables `mta` and `asr` are nested; a figure is in percent, null where the
paper has none. `uncertain` names cells that the paper contradicts itself in, and what else it says:
another figure, or that of a cell which differs in some labels (`like`). Near either will do. With
`why` alone the figures are doubtful, and nothing says what they are instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from entity.config import schema
from entity.config.schema import ConfigError, NonNegative, Range, show, unknown
from entity.sweep.grid import Axis, Grid, label_of, matches, pattern, refuse_twice

Percent = Annotated[float, Range(0, 100)]
Metric = Literal["mta", "asr"]
METRICS: tuple[Metric, ...] = ("mta", "asr")
LOW = 0.1
"""An ASR that counts as low, and is judged by a tolerance of its own."""

_WHERE = "study.published"


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be from the paper's, in points of percent."""

    mta: NonNegative
    asr: NonNegative
    low_asr: NonNegative
    """Of an ASR that the paper has at most at 10 %."""

    def of(self, metric: Metric, value: float) -> float:
        """Return the tolerance of a figure, both as shares of one."""
        low = metric == "asr" and value <= LOW
        return (self.low_asr if low else getattr(self, metric)) / 100

    def __str__(self) -> str:
        """Say it in a sentence's part."""
        return (
            f"MTA within {self.mta:g} points of the paper's and ASR within {self.asr:g}, or "
            f"{self.low_asr:g} where the paper has at most {100 * LOW:g} %"
        )


@dataclass(frozen=True)
class Figure:
    """A figure of the paper, a share of one."""

    value: float
    others: tuple[float, ...] = ()
    """What the paper says elsewhere, or may have meant."""
    doubtful: bool = False
    """Whether it may be of another experiment, and nothing says what it is instead."""

    def nearest(self, measured: float) -> float:
        """Return the one of its values that is nearest."""
        return min((self.value, *self.others), key=lambda value: abs(measured - value))

    def __str__(self) -> str:
        """Return it in percent, with all that it may be and a mark where it is uncertain.

        Examples
        --------
        >>> str(Figure(0.8755)), str(Figure(0.925, (0.94,)))
        ('87.55', '92.50 or 94.00?')
        """
        values = " or ".join(f"{100 * value:.2f}" for value in (self.value, *self.others))
        return f"{values}{'?' if self.others or self.doubtful else ''}"


@dataclass(frozen=True)
class _UncertainTable:
    cells: dict[Any, Any]
    why: str
    mta: Percent | None = None
    asr: Percent | None = None
    like: dict[Any, Any] | None = None


@dataclass(frozen=True)
class _PublishedTable:
    columns: str
    tolerance: Tolerance
    mta: Any
    asr: Any
    rows: tuple[str, ...] = ()
    uncertain: tuple[_UncertainTable, ...] = ()


@dataclass(frozen=True)
class _Doubt:
    cells: Mapping[str, tuple[str, ...]]
    why: str
    said: Mapping[Metric, float]
    like: Mapping[str, str]


Key = tuple[str, ...]
"""Labels of a cell on the axes that figures are listed by."""


@dataclass(frozen=True)
class Published:
    """The figures of a table of a paper."""

    axes: tuple[str, ...]
    tolerance: Tolerance
    values: Mapping[Metric, Mapping[Key, float]]
    doubts: tuple[_Doubt, ...]

    def figure(self, metric: Metric, cell: Mapping[str, str]) -> Figure | None:
        """Return the figure of a cell, by its labels; None where the paper has none."""
        value = self._value(metric, cell)
        if value is None:
            return None
        others: list[float] = []
        doubts = self._doubts(cell)
        for doubt in doubts:
            other = self._value(metric, {**cell, **doubt.like}) if doubt.like else None
            others += [each for each in (doubt.said.get(metric), other) if each is not None]
        doubtful = any(not doubt.said and not doubt.like for doubt in doubts)
        different = tuple(dict.fromkeys(other for other in others if other != value))
        return Figure(value, different, doubtful)

    def reasons(self, cell: Mapping[str, str]) -> list[str]:
        """Say why the figures of a cell are uncertain."""
        return [doubt.why for doubt in self._doubts(cell)]

    def of_values(self, axis: str, labels: Sequence[str]) -> "Published":
        """Return the figures as those of some values of an axis alone.

        Parameters
        ----------
        axis
            Name of the axis.
        labels
            The values that it has in the paper.
        """
        if axis in self.axes:
            axes, values = self.axes, self.values
        else:
            axes = (*self.axes, axis)
            values = {
                metric: {(*key, each): value for key, value in of.items() for each in labels}
                for metric, of in self.values.items()
            }
        own = {axis: tuple(labels)}
        doubts = tuple(replace(each, cells={**own, **each.cells}) for each in self.doubts)
        return replace(self, axes=axes, values=values, doubts=doubts)

    def agrees(self, cell: Mapping[str, str], measured: Mapping[Metric, float]) -> bool:
        """Say whether results are near enough to the figures of a cell, or to what they may be.

        Where two cells may have been swapped, all figures of one are those of the other.

        Parameters
        ----------
        cell
            Its labels.
        measured
            Ours, shares of one, of metrics that the paper has figures of.
        """
        doubts = self._doubts(cell)
        said = [doubt.said for doubt in doubts]
        return self._near(cell, said, measured) or any(
            self._near({**cell, **doubt.like}, [], measured) for doubt in doubts if doubt.like
        )

    def _near(
        self,
        cell: Mapping[str, str],
        said: Sequence[Mapping[Metric, float]],
        measured: Mapping[Metric, float],
    ) -> bool:
        """Say whether all results are near the figures of a cell, or what else is said of them."""
        for metric, result in measured.items():
            figures = [self._value(metric, cell), *(each.get(metric) for each in said)]
            if not any(
                abs(result - figure) <= self.tolerance.of(metric, figure) + 1e-9
                for figure in figures
                if figure is not None
            ):
                return False
        return True

    def _value(self, metric: Metric, cell: Mapping[str, str]) -> float | None:
        return self.values[metric].get(tuple(cell[name] for name in self.axes))

    def _doubts(self, cell: Mapping[str, str]) -> list[_Doubt]:
        return [doubt for doubt in self.doubts if matches(cell, doubt.cells)]


def published(data: Mapping[Any, Any], grid: Grid) -> Published:
    """Read the key `published` of a study.

    Parameters
    ----------
    data
        Its table.
    grid
        The study's grid, for its axes.

    Raises
    ------
    ConfigError
        For anything that does not fit the axes.
    """
    table = schema.load(_PublishedTable, data, _WHERE)
    by_name = {axis.name: axis for axis in grid.axes}
    names = (*table.rows, table.columns)
    for name in names:
        if name not in by_name:
            raise ConfigError(f"{_WHERE}: axis {unknown(name, name, by_name)}")
    refuse_twice(names, f"{_WHERE}: rows and columns")
    axes = [by_name[name] for name in names]
    values: dict[Metric, Mapping[Key, float]] = {
        metric: _values(getattr(table, metric), axes, f"{_WHERE}.{metric}") for metric in METRICS
    }
    doubts = tuple(_doubt(each, grid.axes) for each in table.uncertain)
    return Published(names, table.tolerance, values, doubts)


def _values(data: Any, axes: Sequence[Axis], where: str) -> dict[Key, float]:
    """Read lists that are nested by the labels of all axes but the last."""
    labels = [value.label for value in axes[0].values]
    if len(axes) > 1:
        if not isinstance(data, dict):
            raise ConfigError(f"{where} = {show(data)}: allowed is a table by {axes[0].name}.")
        inner: dict[Key, float] = {}
        named = [label_of(name) for name in data]  # YAML reads some as numbers
        refuse_twice(named, where)
        for label, rest in zip(named, data.values(), strict=True):
            if label not in labels:
                raise ConfigError(f"{where}: {unknown(label, label, labels)}")
            below = _values(rest, axes[1:], f"{where}.{label}")
            inner |= {(label, *key): value for key, value in below.items()}
        return inner
    if not isinstance(data, list) or len(data) != len(labels):
        raise ConfigError(
            f"{where} = {show(data)}: allowed is a list of {len(labels)} figures, for "
            f"{axes[0].name} {', '.join(labels)}."
        )
    return {
        (label,): _share(figure, where)
        for label, figure in zip(labels, data, strict=True)
        if figure is not None
    }


def _share(figure: Any, where: str) -> float:
    if isinstance(figure, bool) or not isinstance(figure, int | float) or not 0 <= figure <= 100:
        raise ConfigError(f"{where} = {show(figure)}: allowed is a figure from 0 to 100, or null.")
    return figure / 100


def _doubt(table: _UncertainTable, axes: Sequence[Axis]) -> _Doubt:
    where = f"{_WHERE}.uncertain"
    said: dict[Metric, float] = {}
    for metric in METRICS:
        if (figure := getattr(table, metric)) is not None:
            said[metric] = figure / 100
    like = pattern(table.like, axes, f"{where}.like") if table.like else {}
    for name, labels in like.items():
        if len(labels) > 1:
            raise ConfigError(f"{where}.like.{name} = {show(list(labels))}: allowed is one label.")
    cells = pattern(table.cells, axes, f"{where}.cells")
    return _Doubt(cells, table.why, said, {name: labels[0] for name, labels in like.items()})
