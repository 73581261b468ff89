"""The configurations: what the runs have in common, and where they differ."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from entity.config.schema import flatten
from entity.report.entries import Entry
from entity.report.seed_bands import by_group
from entity.results.formatting import NONE, setting
from entity.setup.effect import effective

SIDE_BY_SIDE = 6
"""Up to so many groups stand in columns; more in rows, as there are fewer fields than groups."""


@dataclass(frozen=True)
class Settings:
    """Tables of settings as text."""

    common: dict[str, list[tuple[str, str]]]
    """Fields that are the same in all runs, by section: (field, value)."""
    head: list[str]
    rows: list[list[str]]
    """Fields that differ; the first cell of each row is its heading."""
    full: list[tuple[str, str, str]]
    """Label, config hash and version, whole JSON of each run."""


def compare(entries: Sequence[Entry]) -> Settings:
    """Compare the configs of all runs, field by field.

    Names, which are labels already, and fields that do nothing in a run are left out.
    """
    flat = [effective(flatten(entry.run.config)) for entry in entries]
    fields = [field for field in dict.fromkeys(f for one in flat for f in one) if field != "name"]
    written = {
        field: [setting(one[field]) if field in one else NONE for one in flat] for field in fields
    }
    common: dict[str, list[tuple[str, str]]] = {}
    for field, values in written.items():
        if len(set(values)) == 1:
            section, _, rest = field.partition(".")
            title, key = (section, rest) if rest else ("experiment", field)
            common.setdefault(title, []).append((key, values[0]))
    differing = {field: values for field, values in written.items() if len(set(values)) > 1}
    groups = by_group(entries)
    table = [["", *(group[0].group.label for group in groups)]]
    table += [
        [field, *(_together(values, group) for group in groups)]
        for field, values in differing.items()
    ]
    if len(groups) > SIDE_BY_SIDE:
        table = [list(row) for row in zip(*table, strict=True)]
    table[0][0] = "field" if len(groups) <= SIDE_BY_SIDE else "runs"
    return Settings(
        common=common,
        head=table[0],
        rows=table[1:] if differing else [],
        full=[(entry.label, _origin(entry), _whole(entry)) for entry in entries],
    )


def _together(values: Sequence[str], group: Sequence[Entry]) -> str:
    """Write the values of runs that differ by their settings alone."""
    return ", ".join(dict.fromkeys(values[entry.index] for entry in group))


def _origin(entry: Entry) -> str:
    said = {key: entry.run.summary.get(key) for key in ("config_hash", "version")}
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in said.items() if value)


def _whole(entry: Entry) -> str:
    return json.dumps(entry.run.config, indent=2, ensure_ascii=False)
