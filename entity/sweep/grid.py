"""The grid file of a sweep, read strictly: a base, axes over any fields, seeds, exclusions.

- `base`: a shipped configuration such as mnist5k/drop, a file, or tables of fields.
- `axes`: by name, either a list of values, and the name is a field as on the command line, or a
  table of named bundles, each a table of fields. The field `config` chooses the base. A field
  that does nothing in a cell is left out there; cells that then come to one experiment are one.
  A single value will do for a list of one, also beside `axes`: `rounds: 25`.
- `zip`: groups of axes that move together. `seeds`: the axis `seed`, of whole numbers.
- `exclude`: partial assignments, such as {attack: none, DPR: 0.5}; a list means any of it.
- `plugins`: Python files, relative to the grid's, and modules, for all cells.
- `study`: what `drop reproduce` says of the grid and expects of it; a sweep ignores it.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from entity.config import schema
from entity.config.schema import ConfigError, Whole, join, show, unknown
from entity.setup.field_list import OTHER_NAMES, all_names
from entity.setup.plugin_files import absolute
from entity.setup.read import read_file, refuse_depth

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


@dataclass(frozen=True)
class _File:
    """The keys of the file."""

    base: Any = None
    axes: dict[Any, Any] = field(default_factory=dict[Any, Any])
    zip: tuple[tuple[str, ...], ...] = ()
    seeds: tuple[Whole, ...] | None = None
    exclude: tuple[dict[Any, Any], ...] = ()
    study: dict[Any, Any] | None = None
    plugins: tuple[str, ...] = ()


def read(path: Path) -> Grid:
    """Read a grid file.

    Raises
    ------
    ConfigError
        One sentence with the file, the key, and what is allowed.
    """
    data = read_file(path, "grid")
    try:
        return parse(data, path)
    except ConfigError as error:
        raise ConfigError(f"grid {path}: {error}") from error


def of_axes(
    base: Sequence[str] | Mapping[str, Any], axes: Mapping[str, object], title: str
) -> Grid:
    """Build a grid without a file, as `drop sweep --config` and `entity.sweep` do.

    Parameters
    ----------
    base
        Shipped configurations or files, of which several are the axis `config`; or tables of
        fields.
    axes
        Values by field, as in a grid file; anything iterable but a text counts as a list.
    title
        What refusals call it.

    Raises
    ------
    ConfigError
        For anything that a grid file must not say.
    """
    lists = {name: _as_in_a_file(values) for name, values in axes.items()}
    whole: dict[str, Any] = {SEED: lists.pop(SEED)} if SEED in lists else {}
    own = dict(base) if isinstance(base, Mapping) else base[0] if len(base) == 1 else None
    if own is None:
        whole[CONFIG] = list(base)
    file = {"base": own, "axes": whole | lists}
    try:
        return replace(parse(file, Path("sweep")), title=title)
    except ConfigError as error:
        raise ConfigError(f"{title}: {error}") from error


def with_axes(grid: Grid, axes: Mapping[str, object]) -> Grid:
    """Return a grid with more axes, such as those given on the command line beside its file.

    Parameters
    ----------
    grid
        The checked grid.
    axes
        As `of_axes` takes them.

    Raises
    ------
    ConfigError
        If the grid sets a field of them already, or a value is none.
    """
    try:
        own = [_axis(name, _as_in_a_file(values)) for name, values in axes.items()]
        every = (*grid.axes, *own)
        for one, other in combinations(every, 2):
            _refuse_common_fields(one, other)
        made = replace(grid, axes=every)
        _refuse_size(made)
    except ConfigError as error:
        raise ConfigError(f"{grid.said}: {error}") from error
    return made


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
        _refuse_common_fields(one, other)
    longer = replace(grid, axes=made)
    _refuse_size(longer)
    return longer


def with_plugins(grid: Grid, plugins: Sequence[str | Path]) -> Grid:
    """Return a grid with more plugins, named from the working directory."""
    given = [absolute(str(entry), Path()) for entry in plugins]
    return replace(grid, plugins=(*grid.plugins, *given))


def _as_in_a_file(values: object) -> Any:
    """Return values as a file would hold them: bundles, a list, or a single one.

    Scalars of NumPy and PyTorch are the numbers that they are.
    """
    if isinstance(values, Mapping):
        return {key: _as_in_a_file(value) for key, value in values.items()}
    if isinstance(values, os.PathLike):
        return os.fspath(values)  # pyright: ignore[reportUnknownVariableType]
    item = getattr(values, "item", None)
    if callable(item) and getattr(values, "shape", None) == ():
        return item()
    if isinstance(values, Iterable) and not isinstance(values, str | bytes):
        return [_as_in_a_file(value) for value in values]
    return values


def parse(data: Mapping[str, Any], path: Path) -> Grid:
    """Build a grid from nested tables; `path` is where files that it names are looked for.

    Raises
    ------
    ConfigError
        For anything that a grid file must not say.
    """
    refuse_depth(data, "the grid")
    file = schema.load(_File, _scalars_as_axes(data))
    if file.base is not None and not isinstance(file.base, str | dict):
        raise ConfigError(f"base = {show(file.base)}: allowed is a file or a table of fields.")
    axes = [_axis(name, values) for name, values in file.axes.items()]
    if file.seeds is not None:
        if any(axis.name == SEED for axis in axes):
            raise ConfigError("axes.seed and seeds say the same; leave one of them out.")
        axes.insert(0, _axis(SEED, list(file.seeds), "seeds"))
    for one, other in combinations(axes, 2):
        _refuse_common_fields(one, other)
    excluded = tuple(pattern(one, axes, "exclude") for one in file.exclude)
    if isinstance(file.base, dict):
        for axis in axes:
            if all(CONFIG in value.overrides for value in axis.values):
                raise ConfigError(
                    f"base: has fields of its own, and axis {axis.name} chooses another config for "
                    "every cell; give each of its fields as an axis of one value, or the config "
                    "as extends of the base."
                )
    plugins = tuple(absolute(entry, path.parent) for entry in file.plugins)
    zipped = _zipped(file.zip, axes)
    grid = Grid(path, file.base, tuple(axes), zipped, excluded, file.study, plugins)
    _refuse_size(grid)
    if next(grid.assignments(), None) is None:
        raise ConfigError("exclude: leaves no cell of the grid.")
    return grid


def _refuse_size(grid: Grid) -> None:
    size = math.prod(len(factor) for factor in grid.factors())
    if size > MOST:
        raise ConfigError(f"axes: make {size} cells; allowed are {MOST}.")


def _scalars_as_axes(data: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """Move fields that stand beside `axes` with one value each into them.

    What is nearly a key of the file and no field, such as `sedes: 3`, stays where it is, and is
    refused.
    """
    keys, axes = schema.hints(_File), data.get("axes", {})
    moved = {
        name: value
        for name, value in data.items()
        if isinstance(name, str) and name not in keys and _is_scalar(value)
        and (not schema.suggest(name, keys) or name.rsplit(".", 1)[-1] in all_names())
    }  # fmt: skip
    if not moved or not isinstance(axes, dict):
        return data
    for name in moved:
        if name in axes:
            raise ConfigError(f"{name} and axes.{name} say the same; leave one of them out.")
    kept = {name: value for name, value in data.items() if name not in moved}
    return {**kept, "axes": {**axes, **moved}}


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | bool | int | float)


def _axis(name: object, values: object, where: str | None = None) -> Axis:
    if not isinstance(name, str) or not name:
        raise ConfigError(f"axes: the name {show(name)} is no text; put it in quotes.")
    where = where or f"axes.{name}"
    if isinstance(values, dict):
        points = [_bundle(where, label, fields) for label, fields in values.items()]
    elif isinstance(values, list):
        points = [Value(label_of(value), {name: _text(where, value)}) for value in values]
    elif _is_scalar(values):
        points = [Value(label_of(values), {name: _text(where, values)})]
    else:
        raise ConfigError(
            f"{where} = {show(values)}: allowed is a value, a list of values, or a table of named "
            "bundles."
        )
    if not points:
        raise ConfigError(f"{where}: is empty; give it a value or leave it out.")
    labels = [point.label for point in points]
    for label, times in Counter(labels).items():
        if times > 1:
            raise ConfigError(f"{where}: has {show(label)} more than once.")
    return Axis(name, tuple(points), bundled=isinstance(values, dict))


def _bundle(where: str, label: object, fields: object) -> Value:
    if isinstance(label, bool) or not isinstance(label, str | int | float) or label == "":
        raise ConfigError(f"{where}: the name {show(label)} is no text; put it in quotes.")
    where = join(where, label_of(label))
    if not isinstance(fields, dict):
        raise ConfigError(
            f"{where} = {show(fields)}: allowed is a table of fields, such as {{DPR: 0.5}}."
        )
    overrides: dict[str, str] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not name:
            raise ConfigError(f"{where}: the field {show(name)} is no text; put it in quotes.")
        overrides[name] = _text(join(where, name), value)
    return Value(label_of(label), overrides)


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


def _text(where: str, value: object) -> str:
    """Return a value as the command line would take it."""
    if isinstance(value, dict):
        raise ConfigError(
            f"{where} = {show(value)}: is a table; name its fields one by one, each with its dots."
        )
    try:
        return value if isinstance(value, str) else json.dumps(value)
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{where} = {show(value)}: allowed are numbers, texts, true, false, null, and lists "
            "of them."
        ) from error


def _refuse_common_fields(one: Axis, other: Axis) -> None:
    if one.name == other.name:
        raise ConfigError(f"axes: {one.name} comes twice.")
    for mine, yours in product(sorted(one.fields), sorted(other.fields)):
        if same_field(mine, yours):
            longest = max((OTHER_NAMES.get(name, name) for name in (mine, yours)), key=len)
            raise ConfigError(
                f"axes.{one.name} and axes.{other.name}: both set {longest}; "
                "a cell has one value for each field."
            )


def same_field(one: str, other: str) -> bool:
    """Say whether two names may mean one field: either may leave out its first tables.

    Examples
    --------
    >>> same_field("defense", "defense.type"), same_field("client.lr", "server.lr")
    (True, False)
    """
    first, second = (f".{OTHER_NAMES.get(name, name)}" for name in (one, other))
    return first.endswith(second) or second.endswith(first)


def _zipped(groups: Sequence[Sequence[str]], axes: Sequence[Axis]) -> tuple[tuple[str, ...], ...]:
    by_name = {axis.name: axis for axis in axes}
    used: set[str] = set()
    for group in groups:
        for name in group:
            if name not in by_name:
                raise ConfigError(f"zip: axis {unknown(name, name, by_name)}")
            if name in used:
                raise ConfigError(f"zip: {name} comes twice.")
            used.add(name)
        sizes = [len(by_name[name].values) for name in group]
        if len(group) < 2:
            raise ConfigError(f"zip: {show(list(group))} has nothing to move together.")
        if len(set(sizes)) > 1:
            counted = ", ".join(f"{n} has {size}" for n, size in zip(group, sizes, strict=True))
            raise ConfigError(f"zip: {counted} values; axes that move together need as many.")
    return tuple(tuple(group) for group in groups)


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
    for label in labels:
        if label not in known:
            raise ConfigError(f"{where}.{axis.name} = {unknown(label, label, known)}")
    return tuple(labels)
