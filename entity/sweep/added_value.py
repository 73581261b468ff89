"""A value for an axis that chooses among methods: what a method that is added there sets.

It is made as the axis's own values are. A defense sets what the value sets under which nobody
defends, and itself; a shipped one has its own configuration beside that one. Another method sets
what all values of the axis set alike that choose such a method. Where those set a field each
differently, such as the round in which an attack stops, it has to be given for the new one, too.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entity.config import schema, shipped
from entity.config.schema import ConfigError, suggest
from entity.defenses import ALIASES
from entity.setup.field_list import ATTACK, DEFENSE, same_field, table_at
from entity.setup.overrides import override
from entity.setup.plugins import TABLES
from entity.sweep.bases import Bases
from entity.sweep.grid import CONFIG, Axis, Grid, Value

NAME = "name"
"""The field that a value never has of others: it would be called as they are."""


class CannotAdd(ConfigError):
    """A method that cannot be added; the sentence begins with what was asked for."""


@dataclass(frozen=True)
class Asked:
    """A value that is asked for."""

    axis: str
    label: str
    settings: Mapping[str, str]
    """Texts by field, which go before all that it has of others."""

    @property
    def said(self) -> str:
        """Return it as it was given."""
        return f"{self.axis}={self.label}"


def tables_of(axis: Axis) -> list[str]:
    """Return the tables of plugins whose methods an axis chooses from; none for rounds, or data.

    An attack and a data poison combine, so that an axis of one takes the other, too.
    """
    chosen = {_table(*field) for value in axis.values for field in value.overrides.items()}
    if chosen & {"ATTACKS", "POISONS"}:
        chosen |= {"ATTACKS", "POISONS"}
    return [table for table in TABLES if table in chosen]


def added_value(grid: Grid, axis: Axis, asked: Asked) -> Value:
    """Return the value that is asked for.

    Parameters
    ----------
    grid
        The grid, whose plugins are loaded.
    axis
        Its axis.
    asked
        Its label is the method, unless its settings have that or a configuration.

    Raises
    ------
    CannotAdd
        If nobody knows the method, if the axis has the value already or does not say what else a
        new one sets, or if a setting is none of the method's.
    """
    bases = Bases(grid)
    table, method = _method(axis, asked)
    start = {} if table is None else _start(axis, asked, bases, table, method)
    given = {
        name: text
        for name, text in asked.settings.items()
        if table is None or not _chooses(table, name, text)
    }
    overrides = {**_without(start, given), **given}
    for value in axis.values:
        if dict(value.overrides) == overrides:
            raise CannotAdd(f"{asked.said}: is the value {value.label} of the study already.")
    _check(grid, bases, asked, overrides)
    return Value(asked.label, overrides)


def _start(axis: Axis, asked: Asked, bases: Bases, table: str, method: str) -> dict[str, str]:
    """Return the method, and what its value has of others of the axis."""
    like = _like_undefended if table == "DEFENSES" else _like_all
    field = TABLES[table].field
    start = _without(like(axis, asked, bases), {field: method})
    if table == "DEFENSES" and (own := _own_config(start.get(CONFIG), method, bases)):
        return {**start, CONFIG: own}
    return {**start, field: method}


def _table(name: str, text: str) -> str | None:
    """Return the table of plugins from which a field chooses with this value."""
    if name == CONFIG:
        return "DEFENSES"  # what the configurations of an axis differ in
    if same_field(name, ATTACK):
        return None if schema.read_text(text) is None else "ATTACKS"
    return next((table for table, kind in TABLES.items() if same_field(name, kind.field)), None)


def _chooses(table: str, name: str, text: str) -> bool:
    """Say whether a setting is the name of a method."""
    return name != CONFIG and _table(name, text) == table


def _method(axis: Axis, asked: Asked) -> tuple[str | None, str]:
    """Return the table of the method, and its name; None where a configuration says it all."""
    tables = tables_of(axis)
    chosen = [(t, n, x) for n, x in asked.settings.items() for t in tables if _chooses(t, n, x)]
    if len(chosen) > len({table for table, _, _ in chosen}):
        raise CannotAdd(f"{asked.said}: two settings name its method; leave one of them out.")
    for table, name, text in chosen:
        if not _knows(table, method := _canonical(text)):
            raise _unknown(f"{asked.label}.{name}={text}", text, [table])
        return table, method
    found = [table for table in tables if _knows(table, asked.label)]
    if len(found) == 1:
        return found[0], asked.label
    if found:
        fields = " or ".join(f"mine.{TABLES[table].field}" for table in found)
        raise CannotAdd(
            f"{asked.said}: may be {_kinds(found)}; add it as mine, with {fields} beside it."
        )
    if CONFIG in asked.settings:
        return None, ""
    raise _unknown(asked.said, asked.label, tables)


def _unknown(said: str, name: str, tables: Sequence[str]) -> CannotAdd:
    """Return the refusal of a name that is no method of some tables, with the nearest one."""
    known = [each for table in tables for registry in TABLES[table].registries for each in registry]
    hint = suggest(name, known)
    if other := [table for table in TABLES if table not in tables and _knows(table, name)]:
        hint = f" It is {_kinds(other)}."
    hint = hint or f" Known are {', '.join(known)}, and those of the files that --plugins names."
    return CannotAdd(f"{said}: is {_kinds(tables, 'no')} that is known.{hint}")


def _canonical(name: str) -> str:
    return ALIASES.get(name.lower(), name)


def _knows(table: str, name: str) -> bool:
    return any(name in registry for registry in TABLES[table].registries)


def _kinds(tables: Sequence[str], article: str = "") -> str:
    """Return what the methods of some tables are: `an attack or a data poison`."""
    kinds = [TABLES[table].kind for table in tables]
    return " or ".join(
        f"{article or ('an' if kind.startswith('a') else 'a')} {kind}" for kind in kinds
    )


def _like_undefended(axis: Axis, asked: Asked, bases: Bases) -> Mapping[str, str]:
    """Return what the value sets under which nobody defends; without one, what all start from."""
    if CONFIG in asked.settings:
        return {}
    bare = [value for value in axis.values if _defense(value, bases) == "undefended"]
    return bare[0].overrides if len(bare) == 1 else _first(axis, asked, bases)


def _first(axis: Axis, asked: Asked, bases: Bases) -> Mapping[str, str]:
    """Return the configuration of a first value, if those of all differ in their defense alone."""
    configs = [value.overrides[CONFIG] for value in axis.values if CONFIG in value.overrides]
    if not configs:
        return {}
    first, *others = (_undefended(bases[config]) for config in configs)
    if any(other != first for other in others):
        raise CannotAdd(
            f"{asked.said}: the values of {axis.name} start from several configurations; say from "
            f"which this one does, such as {asked.label}.config={configs[0]}."
        )
    return {CONFIG: configs[0]}


def _undefended(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its defense."""
    server = {k: v for k, v in table_at(tables, "server").items() if k != "defense"}
    return {**tables, "server": server}


def _defense(value: Value, bases: Bases) -> str | None:
    """Return the defense that a value of an axis sets; None for none."""
    for name, text in value.overrides.items():
        if same_field(name, f"{DEFENSE}.type"):
            return _canonical(text)
    config = value.overrides.get(CONFIG)
    return None if config is None else _of_config(bases[config])


def _of_config(tables: Mapping[str, Any]) -> str:
    return _canonical(str(table_at(tables, "server", "defense").get("type") or "undefended"))


def _own_config(config: str | None, defense: str, bases: Bases) -> str | None:
    """Return a shipped defense's own configuration, if it lies beside that of another one."""
    if config not in shipped.names():
        return None
    own = Path(config).with_name(defense).as_posix()
    return own if own in shipped.names() and _of_config(bases[own]) == defense else None


def _like_all(axis: Axis, asked: Asked, bases: Bases) -> Mapping[str, str]:
    """Return what all values set alike that choose a method."""
    values = [
        value.overrides
        for value in axis.values
        if any(_table(*field) for field in value.overrides.items())
    ]
    common: dict[str, str] = {}
    for name in values[0]:
        texts = {value.get(name) for value in values}
        if None in texts or name == NAME:
            continue
        if len(texts) == 1:
            common[name] = values[0][name]
        elif name == CONFIG or not _table(name, values[0][name]):
            _require(name, values[0][name], axis, asked)
    return common


def _require(name: str, text: str, axis: Axis, asked: Asked) -> None:
    """Refuse a value that lacks what every other value of the axis sets, each differently."""
    if not any(same_field(name, given) for given in asked.settings):
        raise CannotAdd(
            f"{asked.said}: every value of {axis.name} sets its own {name}; give this one's, such "
            f"as {asked.label}.{name}={text}."
        )


def _without(start: Mapping[str, str], own: Mapping[str, str]) -> dict[str, str]:
    """Return what a value starts as without the fields that are given for it."""
    return {
        name: text
        for name, text in start.items()
        if not any(same_field(name, given) for given in own)
    }


def _check(grid: Grid, bases: Bases, asked: Asked, overrides: Mapping[str, str]) -> None:
    """Refuse a setting that is none, or has no such value, before any cell is made of it."""
    config = overrides.get(CONFIG)
    if config is None and grid.base is None:
        every = [value.overrides.get(CONFIG) for axis in grid.axes for value in axis.values]
        config = next((each for each in every if each is not None), None)
    tables: dict[str, Any] = {}
    for name, text in sorted(overrides.items(), key=_bases_and_methods_first):
        try:
            tables = tables or deepcopy(dict(bases[config]))
            if name != CONFIG:
                override(tables, [(name, text)])
        except ConfigError as error:
            raise CannotAdd(f"{asked.label}.{name}={text}: {error}") from error


def _bases_and_methods_first(field: tuple[str, str]) -> tuple[bool, bool]:
    """Return a key for sorting: they decide which other fields there are."""
    return field[0] != CONFIG, _table(*field) is None
