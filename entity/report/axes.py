"""The fields of configurations in which runs differ, by which a table is laid out."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from typing import cast

from entity.config.schema import flatten
from entity.report.runs import RunRecord
from entity.results.filter import BadField, full_name
from entity.results.formatting import NONE, setting
from entity.setup.effect import idle
from entity.setup.field_list import fields as fields_of_experiment

DEFENSE, ATTACK = "defense", "attack"
"""Axes under which a run that has neither stands as `none`."""

_TYPES = {"server.defense.type": DEFENSE, "client.attack.type": ATTACK}
_SHORT = {"number_of_malicious_clients": "malicious"}
"""Fields whose names would make a label long."""

_EVALUATED = "settings.eval_every"

_SAY_NOTHING = ("name", "client.attack", "server.defense")


@dataclass(frozen=True)
class Axis:
    """A field of the configuration."""

    path: str
    """`defense`, `attack`, or a dotted path."""
    title: str
    """Its name without the tables, where that is unambiguous."""

    def value(self, run: RunRecord) -> object:
        """Return the value of a run; None where its config has no such field."""
        return values(run).get(self.path)

    def written(self, run: RunRecord) -> str:
        """Write the value alone."""
        found = values(run)
        return setting(found[self.path]) if self.path in found else NONE

    def label(self, written: str) -> str:
        """Make a written value explain itself: `badnets`, but `DPR 0.25`."""
        return written if self.path in (DEFENSE, ATTACK) else f"{self.title} {written}"

    @property
    def of_the_server(self) -> bool:
        """Whether it belongs to the defense rather than to the federation or the attack."""
        return self.path == DEFENSE or self.path.startswith("server.")


@cache
def _short(paths: tuple[str, ...]) -> dict[str, str]:
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {
        path: _SHORT.get(name, name) if last.count(name) == 1 else path
        for path, name in zip(paths, last, strict=True)
    }


def every_field(run: RunRecord) -> dict[str, object]:
    """Return all fields of a run by dotted path; one that a later version brought at its default.

    Such a default changes nothing, or an identity would tell the runs apart.
    """
    return {**defaults(run.config), **dict(flatten(run.config))}


def effective_fields(run: RunRecord) -> dict[str, object]:
    """Return the same without those that do nothing in it."""
    recorded, known = dict(flatten(run.config)), every_field(run)
    without = idle(recorded) | (idle(known) - recorded.keys())
    return {path: value for path, value in known.items() if path not in without}


def defaults(config: Mapping[str, object]) -> dict[str, object]:
    """Return the default of every field; those of plugins, which are not loaded, have none."""
    return {
        field.path: list(cast("tuple[object]", value))
        if isinstance(value := field.default, tuple)
        else value
        for field in fields_of_experiment(config, shipped=True)
        if field.default is not MISSING
    }


def values(run: RunRecord) -> dict[str, object]:
    """Return all fields of a run that say which experiment it is, defense and attack first.

    Settings are left out: they say how to run it, and the seed is what a cell sums up; but not
    which rounds are evaluated. Fields that do nothing in it are left out, too.
    """
    found: dict[str, object] = {DEFENSE: run.defense, ATTACK: run.attack}
    for path, value in effective_fields(run).items():
        how = path.startswith("settings.") and path != _EVALUATED
        if path not in _SAY_NOTHING and path not in _TYPES and not how:
            found[path] = value
    return found


def differing(runs: Sequence[RunRecord]) -> list[Axis]:
    """Return the fewest fields, in the order of the schema, that tell the experiments apart.

    A field that follows from those before it, such as an argument of a defense that each defense
    has at one value, is left out.
    """
    all_values = [values(run) for run in runs]
    paths = tuple(dict.fromkeys(path for one in all_values for path in one))
    short = _short(paths)
    known: list[tuple[str, ...]] = [()] * len(runs)
    found: list[Axis] = []
    for path in paths:
        finer = [
            (*key, setting(one[path]) if path in one else NONE)
            for key, one in zip(known, all_values, strict=True)
        ]
        if len(set(finer)) > len(set(known)):
            found.append(Axis(path, short[path]))
            known = finer
    return found


def named(names: Sequence[str], runs: Sequence[RunRecord]) -> list[Axis]:
    """Find fields by their names, which may leave out their first tables.

    Raises
    ------
    BadField
        For a name that no run has or that may mean several fields, and for the seed.
    """
    paths = tuple(dict.fromkeys(path for run in runs for path in values(run)))
    short = _short(paths)
    found: list[Axis] = []
    for name in names:
        if name in ("seed", "settings.seed"):
            raise BadField(f"{name} is what a cell sums up; name another field.")
        full = full_name(name, [*paths, *_TYPES])
        path = _TYPES.get(full, full)
        found.append(Axis(path, short[path]))
    return found
