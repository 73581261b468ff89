"""The configurations: what the runs have in common, and where they differ."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache

from entity.config.schema import flatten
from entity.config.shipped import names, shipped
from entity.report.axes import ATTACK, DEFENSE, defaults, effective_fields
from entity.report.axes import differing as axes_of
from entity.report.entries import Entry
from entity.report.seed_bands import by_group
from entity.results.formatting import NONE, setting
from entity.setup.resolve import experiment, read, to_json

SIDE_BY_SIDE = 6
"""Up to so many groups stand in columns; more in rows, as there are fewer fields than groups."""

_PATHS = {DEFENSE: "server.defense.type", ATTACK: "client.attack.type"}


@dataclass(frozen=True)
class Table:
    """Fields that differ: a head, and rows whose first cells name them or the runs."""

    head: list[str]
    rows: list[list[str]]
    fields: int


Shared = dict[str, list[tuple[str, str]]]
"""Fields that are the same in all runs, by section: (field, value)."""


@dataclass(frozen=True)
class Settings:
    """Tables of settings as text.

    What the reader of a report asks for stands apart from what is at its default, which is most.
    """

    common: Shared
    common_defaults: Shared
    differing: Table | None
    differing_defaults: Table | None
    """Fields that differ though nobody chose one, as the settings of two defenses do: every run
    has its method's default there, or what the shipped configuration of that method has."""
    full: list[tuple[str, str, str]]
    """Label, config hash and version, whole JSON of each run."""


def compare(entries: Sequence[Entry]) -> Settings:
    """Compare the configs of all runs, field by field.

    Names, which are labels already, and fields that do nothing in a run are left out.
    """
    flat = [effective_fields(entry.run) for entry in entries]
    not_default = frozenset(
        path
        for entry, values in zip(entries, flat, strict=True)
        for path in _differing(values, [defaults(entry.run.config)])
    )
    axes = {axis.path for axis in axes_of([entry.run for entry in entries])}
    were_set = frozenset(
        path
        for entry, values in zip(entries, flat, strict=True)
        for path in _differing(values, [defaults(entry.run.config), *_shipped(values)])
    ) | {_PATHS.get(path, path) for path in axes}
    fields = [field for field in dict.fromkeys(f for one in flat for f in one) if field != "name"]
    written = {
        field: [setting(one[field]) if field in one else NONE for one in flat] for field in fields
    }
    common: Shared = {}
    of_defaults: Shared = {}
    differing: list[str] = []
    for field, values in written.items():
        if len(set(values)) > 1:
            differing.append(field)
            continue
        section, _, rest = field.partition(".")
        title, key = (section, rest) if rest else ("experiment", field)
        kind = common if field in not_default else of_defaults
        kind.setdefault(title, []).append((key, values[0]))
    groups = by_group(entries)
    return Settings(
        common,
        of_defaults,
        _table([field for field in differing if field in were_set], written, groups),
        _table([field for field in differing if field not in were_set], written, groups),
        full=[(entry.label, _origin(entry), _whole(entry)) for entry in entries],
    )


def _differing(
    values: Mapping[str, object], known: Sequence[Mapping[str, object]]
) -> Iterator[str]:
    """Yield the fields that have another value in each of the known configurations."""
    for path, value in values.items():
        if all(value != one.get(path, MISSING) for one in known):
            yield path


def _shipped(values: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the shipped configurations of an experiment's data set and defense."""
    dataset, defense = (str(values.get(path)) for path in ("dataset", "server.defense.type"))
    return [
        _values_of(name)
        for name in names()
        if name.startswith(f"{dataset}/") and name.endswith(f"/{defense}")
    ]


@cache
def _values_of(name: str) -> dict[str, object]:
    return dict(flatten(to_json(experiment(read(shipped(name))))))


def _table(
    fields: Sequence[str], written: Mapping[str, Sequence[str]], groups: Sequence[Sequence[Entry]]
) -> Table | None:
    """Lay fields out, as columns where there are more groups than stand side by side."""
    if not fields:
        return None
    table = [["field", *(group[0].group.label for group in groups)]]
    table += [[field, *(_together(written[field], group) for group in groups)] for field in fields]
    if len(groups) > SIDE_BY_SIDE:
        table = [list(row) for row in zip(*table, strict=True)]
        table[0][0] = "runs"
    return Table(table[0], table[1:], len(fields))


def _together(values: Sequence[str], group: Sequence[Entry]) -> str:
    """Write the values of runs that differ by their settings alone."""
    return ", ".join(dict.fromkeys(values[entry.index] for entry in group))


def _origin(entry: Entry) -> str:
    said = {key: entry.run.summary.get(key) for key in ("config_hash", "version")}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said.items() if value)


def _whole(entry: Entry) -> str:
    return json.dumps(entry.run.config, indent=2, ensure_ascii=False)
