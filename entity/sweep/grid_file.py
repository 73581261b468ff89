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
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from entity.config import schema
from entity.config.schema import ConfigError, Whole, join, show, unknown
from entity.setup.field_list import all_names, longest_name, same_field
from entity.setup.plugin_files import absolute
from entity.setup.read import read_file, refuse_depth
from entity.sweep.grid import (
    CONFIG,
    SEED,
    Axis,
    Grid,
    Value,
    label_of,
    pattern,
    refuse_common_fields,
    refuse_size,
)


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
        If the grid sets a field of them already, a value is none, or another config is chosen
        for every cell of a base with fields of its own.
    """
    try:
        own = [_axis(name, _as_in_a_file(values)) for name, values in axes.items()]
        every = tuple(sorted((*grid.axes, *own), key=lambda axis: axis.name != SEED))
        for one, other in combinations(every, 2):
            refuse_common_fields(one, other)
        _refuse_lost_base(grid.base, every)
        made = replace(grid, axes=every)
        refuse_size(made)
    except ConfigError as error:
        raise ConfigError(f"{grid.said}: {error}") from error
    return made


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
        refuse_common_fields(one, other)
    excluded = tuple(pattern(one, axes, "exclude") for one in file.exclude)
    _refuse_lost_base(file.base, axes)
    plugins = tuple(absolute(entry, path.parent) for entry in file.plugins)
    zipped = _zipped(file.zip, axes)
    grid = Grid(path, file.base, tuple(axes), zipped, excluded, file.study, plugins)
    refuse_size(grid)
    if next(grid.assignments(), None) is None:
        raise ConfigError("exclude: leaves no cell of the grid.")
    return grid


def _refuse_lost_base(base: object, axes: Sequence[Axis]) -> None:
    """Refuse a base with fields of its own that no cell would begin with."""
    for axis in axes if isinstance(base, Mapping) else ():
        if all(CONFIG in value.overrides for value in axis.values):
            raise ConfigError(
                f"base: has fields of its own, and axis {axis.name} chooses another config for "
                "every cell; give each of its fields as an axis of one value, or the config "
                "as extends of the base."
            )


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
    for one, other in combinations(overrides, 2):
        if same_field(one, other):
            raise ConfigError(
                f"{where}: {one} and {other} both set {longest_name(one, other)}; leave one of "
                "them out."
            )
    return Value(label_of(label), overrides)


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
