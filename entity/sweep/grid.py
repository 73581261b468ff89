"""The grid of a sweep: axes, their values, and what is left out of their product."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from entity.config.schema import ConfigError, show, unknown
from entity.setup.field_list import longest_name, same_field
from entity.setup.plugin_files import absolute

MOST = 100_000
"""Cells that a grid may have before exclusions; more are a mistake."""

CONFIG = "config"
"""The override that chooses a cell's base; everything else names a field."""

SEED = "seed"
"""The axis that `seeds` makes."""


@dataclass(frozen=True)
class Value:
    """One point of an axis: its name, and the fields it sets."""

    label: str
    overrides: Mapping[str, str]
    """Texts by field, as the command line takes them."""


@dataclass(frozen=True)
class Axis:
    """A dimension of the grid."""

    name: str
    values: tuple[Value, ...]
    bundled: bool = False
    """Values are named bundles; otherwise the axis is called as the field it sets."""

    @property
    def fields(self) -> frozenset[str]:
        """Names that any of its values sets."""
        return frozenset(name for value in self.values for name in value.overrides)


@dataclass(frozen=True)
class Grid:
    """A checked grid file; whether its cells are experiments, `cells.expand` says."""

    path: Path
    """The file; what it names is looked for beside it first."""
    base: str | Mapping[str, Any] | None
    axes: tuple[Axis, ...]
    """Seeds first: a sweep that is cut short has most cells of one seed."""
    zipped: tuple[tuple[str, ...], ...]
    excluded: tuple[Mapping[str, tuple[str, ...]], ...]
    study: Mapping[Any, Any] | None = None
    """As the file has it; `study.py` reads it."""
    plugins: tuple[str, ...] = ()
    """Plugins for all cells, beside those of the bases; absolute paths."""
    title: str = ""
    """What refusals call it, where that is no file."""

    @property
    def said(self) -> str:
        """Name the grid, for refusals."""
        return self.title or f"grid {self.path}"

    @property
    def varied(self) -> list[Axis]:
        """Axes with more than one value, the seed aside."""
        return [axis for axis in self.axes if len(axis.values) > 1 and axis.name != SEED]

    def assignments(self) -> Iterator[dict[str, str]]:
        """Yield the label of each axis, for every cell that is not excluded."""
        for labels in product(*self.factors()):
            cell = {name: label for group in labels for name, label in group}
            if not any(matches(cell, one) for one in self.excluded):
                yield {axis.name: cell[axis.name] for axis in self.axes}

    def factors(self) -> list[list[tuple[tuple[str, str], ...]]]:
        """Return the independent dimensions, each as what its steps assign to axes."""
        group_of = {name: group for group in self.zipped for name in group}
        groups = dict.fromkeys(group_of.get(axis.name, (axis.name,)) for axis in self.axes)
        labels = {axis.name: [value.label for value in axis.values] for axis in self.axes}
        return [
            [
                tuple(zip(group, step, strict=True))
                for step in zip(*(labels[name] for name in group), strict=True)
            ]
            for group in groups
        ]


def matches(cell: Mapping[str, str], pattern: Mapping[str, tuple[str, ...]]) -> bool:
    """Say whether a cell has one of the pattern's labels on every axis that it names."""
    return all(cell[name] in labels for name, labels in pattern.items())


def label_of(value: object) -> str:
    """Return a value as conditions, names and exclusions call it.

    Examples
    --------
    >>> label_of(0.5), label_of(None), label_of("dba"), label_of([[0, 0]])
    ('0.5', 'null', 'dba', '[[0, 0]]')
    """
    try:
        return value if isinstance(value, str) else json.dumps(value, default=str)
    except (ValueError, TypeError):  # too many digits, or keys that only YAML has
        return show(value)


def pattern(
    data: Mapping[Any, Any], axes: Sequence[Axis], where: str
) -> Mapping[str, tuple[str, ...]]:
    """Read a partial assignment: the labels that it allows, by axis.

    Parameters
    ----------
    data
        Labels, or lists of them, by axis.
    axes
        The axes of the grid.
    where
        Key of the file, for errors.

    Raises
    ------
    ConfigError
        For one that names nothing, or what the axes do not have.
    """
    if not data:
        raise ConfigError(f"{where}: {{}} would mean every cell.")
    by_name = {axis.name: axis for axis in axes}
    labels: dict[str, tuple[str, ...]] = {}
    for name, values in data.items():
        if name not in by_name:
            raise ConfigError(f"{where}: axis {unknown(str(name), str(name), by_name)}")
        labels[name] = _chosen(by_name[name], values, where)
    return labels


def _chosen(axis: Axis, values: Any, where: str) -> tuple[str, ...]:
    """Return the labels that a pattern names: one, or any of a list."""
    known = [value.label for value in axis.values]
    whole = label_of(values)
    several = isinstance(values, list) and whole not in known
    labels = [label_of(value) for value in values] if several else [whole]
    if not labels:
        raise ConfigError(
            f"{where}.{axis.name} = []: means no cell; name a value, or leave it out."
        )
    for label in labels:
        if label not in known:
            raise ConfigError(f"{where}.{axis.name} = {unknown(label, label, known)}")
    return tuple(labels)


def refuse_twice(names: Sequence[str], where: str) -> None:
    """Refuse names of axes, under a key of the file, of which one comes twice."""
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: {name} comes twice.")


def with_values(grid: Grid, axis: str, values: Sequence[Value]) -> Grid:
    """Return a grid with more values at the end of one of its axes.

    Parameters
    ----------
    grid
        The checked grid.
    axis
        Name of the axis.
    values
        Their labels are new to it.

    Raises
    ------
    ConfigError
        If another axis sets a field of them, the axis moves together with another, or there
        would be too many cells.
    """
    if any(axis in group for group in grid.zipped):
        raise ConfigError(f"axes.{axis}: moves together with others, and can have no more values.")
    made = tuple(
        replace(each, values=(*each.values, *values)) if each.name == axis else each
        for each in grid.axes
    )
    for one, other in combinations(made, 2):
        refuse_common_fields(one, other)
    longer = replace(grid, axes=made)
    refuse_size(longer)
    return longer


def with_plugins(grid: Grid, plugins: Sequence[str | Path]) -> Grid:
    """Return a grid with more plugins, named from the working directory."""
    given = [absolute(str(entry), Path()) for entry in plugins]
    return replace(grid, plugins=(*grid.plugins, *given))


def refuse_common_fields(one: Axis, other: Axis) -> None:
    """Refuse two axes of one name, or that set one field."""
    if one.name == other.name:
        raise ConfigError(f"axes: {one.name} comes twice.")
    for mine, yours in product(sorted(one.fields), sorted(other.fields)):
        if same_field(mine, yours):
            raise ConfigError(
                f"axes.{one.name} and axes.{other.name}: both set {longest_name(mine, yours)}; "
                "a cell has one value for each field."
            )


def refuse_size(grid: Grid) -> None:
    """Refuse a grid of more than `MOST` cells."""
    size = math.prod(len(factor) for factor in grid.factors())
    if size > MOST:
        raise ConfigError(f"axes: make {size} cells; allowed are {MOST}.")
