"""All runs of a folder as one table, a row a run: their results, and the fields that differ.

Nothing is stored beside the run directories, so the table is never out of date. A run that was cut
short, or whose files are damaged, is a row that says so.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean

from entity.config.fields import NEVER, RUNTIME_SETTINGS, WITHOUT_EFFECT
from entity.config.schema import ConfigError, flatten
from entity.record.consistency import consistency
from entity.record.directory import ERROR, read_summary
from entity.record.json_fields import at, attack_of, mapping, number, numbers, text
from entity.record.json_files import read_object
from entity.record.lock import is_locked
from entity.record.rounds import whole_lines
from entity.record.window import Window, remark, span
from entity.results.classes import Label, is_class, labelled
from entity.results.filter import Where, full_name
from entity.results.floor import Judged, floors
from entity.results.state import state_of
from entity.results.tables import Column, Spread, Table
from entity.setup import resolve
from entity.setup.effect import blanked, idle
from entity.setup.plugin_files import short

log = logging.getLogger("entity")

MEASURED = (
    Column("mta", "%", title="MTA"),
    Column("asr", "%", title="ASR"),
    Column("asr_max", "%", title="ASR max"),
    Column("worst_asr", "%", title="worst ASR"),
    Column("floor", "%"),
    Column("victim_accuracy", "%", title="on victims"),
    Column("dpr_of_all", "%", title="DPR of all"),
    Column("tpr", "%", title="TPR"),
    Column("fpr", "%", title="FPR"),
    Column("seconds", "s"),
)
"""Means over the last ten evaluated rounds, the highest ASR of those, the highest of all rounds of
acceptable MTA (`record.consistency`), the ASR without attack (`floor`), mean accuracy on the clean
victims, share of all samples of the malicious clients that is poisoned, shares of the attackers'
and of the honest updates refused, seconds of all rounds."""

_FIRST = ("name", "defense", "attack", "seed")
_LAST = ("state", "hash", "path")
_NOT_COMPARED = {
    *("name", "server.defense.type", "client.attack.type", "settings.seed"),
    *(f"settings.{name}" for name in RUNTIME_SETTINGS),
    *WITHOUT_EFFECT,
}
_NO_ATTACK = ("client.attack.participation_strategy", NEVER)
"""What the column `attack` says already."""
_RATE = "client.attack.DPR"
"""Share of the victim class that is poisoned."""
_TRACES = {"rounds.jsonl", "summary.json", ERROR}


@dataclass(frozen=True)
class Run:
    """A run directory in one line."""

    path: Path
    facts: Mapping[str, object]
    """The fixed columns of the table, which every run has."""
    fields: Mapping[str, object]
    """Its whole configuration, by dotted path; None where the rest of it makes a field idle."""
    config: Mapping[str, object] = field(default_factory=dict[str, object])
    """The same as it is, in nested tables."""
    idle: frozenset[str] = frozenset()
    """Fields that do nothing in it: an alpha of an IID split would look like a non-IID one."""
    window: Window | None = None
    """What its means are taken over, where its summary tells."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Time of all rounds by phase."""
    data: str = ""
    """Hash of its data, as they were split; "" where an earlier version did not record it."""

    @property
    def finished(self) -> bool:
        """Whether it ran to its end."""
        return self.facts["state"] == "finished"

    @property
    def row(self) -> dict[str, object]:
        """Return facts and fields under their names."""
        return {**self.fields, **self.facts}


def collect(folders: Sequence[Path]) -> list[Run]:
    """Read all runs in and below these folders, by path; a run in two of them counts once.

    The floor of an attack is taken from its attack-free twin among them.

    Raises
    ------
    ConfigError
        If one of them is no folder.
    """
    paths: dict[Path, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"{folder}: is no folder of runs.")
        seen: set[Path] = set()  # a link may lead back up
        for parent, below, files in os.walk(folder, followlinks=True):
            below.sort()
            if (place := Path(parent).resolve()) in seen:
                below.clear()
                continue
            seen.add(place)
            if "config.json" in files and not _TRACES.isdisjoint(files):
                paths.setdefault(place, Path(parent))
                below.clear()
    runs = [read_row(path) for path in paths.values()]
    found = floors([Judged(run.config, _asr(run)) for run in runs])
    return [
        replace(run, facts={**run.facts, "floor": floor})
        for run, floor in zip(runs, found, strict=True)
    ]


def of_acceptable_rounds(runs: Sequence[Run], mta_at_least: float) -> list[Run]:
    """Return the runs with the worst ASR of those rounds that have at least this MTA.

    Parameters
    ----------
    runs
        As `collect` returns them; their `rounds.jsonl` are read.
    mta_at_least
        The acceptable MTA, from 0 to 1.
    """
    return [
        replace(run, facts={**run.facts, "worst_asr": _worst_asr(run.path, mta_at_least)})
        for run in runs
    ]


def _worst_asr(folder: Path, mta_at_least: float) -> float | None:
    try:
        lines = [mapping(json.loads(line)) for line in whole_lines(folder)]
    except ConfigError as error:
        log.warning("%s", error)
        return None
    done = number(read_summary(folder), "rounds") or 0
    if len(lines) < done:
        log.warning(
            "%s: %d of its %d rounds can be read, so that its worst ASR of rounds with another MTA "
            "is not known",
            *(folder / "rounds.jsonl", len(lines), done),
        )
        return None
    found = consistency(
        ((place, number(line, "mta"), number(line, "asr")) for place, line in enumerate(lines, 1)),
        mta_at_least,
    )
    return None if found is None else found.worst_asr


def _asr(run: Run) -> float | None:
    asr = run.facts["asr"]
    return asr if run.finished and isinstance(asr, float) else None


def read_row(path: Path) -> Run:
    """Read one run directory, whatever state it is in."""
    config, summary = read_object(path / "config.json"), read_summary(path)
    mta, asr = mapping(summary.get("mta")), mapping(summary.get("asr"))
    detection, seconds = mapping(summary.get("detection")), mapping(summary.get("seconds"))
    facts: dict[str, object] = {
        "name": text(summary, "name") or text(config, "name") or path.resolve().name,
        "defense": at(config, "server.defense.type") or text(summary, "defense") or None,
        "attack": attack_of(config) or text(summary, "attack") or "none",
        "seed": at(config, "settings.seed"),
        "mta": number(mta, "last10"),
        "asr": number(asr, "last10"),
        "asr_max": number(asr, "max_last10"),
        "worst_asr": number(mapping(summary.get("consistency")), "worst_asr"),
        "floor": None,
        "victim_accuracy": number(mapping(summary.get("victim_accuracy")), "last10"),
        "dpr_of_all": number(mapping(summary.get("dpr")), "of_all"),
        "tpr": number(detection, "tpr"),
        "fpr": number(detection, "fpr"),
        "seconds": number(seconds, "total"),
        "state": _state(path, config, summary),
        "hash": text(summary, "config_hash") or (resolve.fingerprint(config) if config else None),
        "path": str(path),
    }
    fields = {key: _shortened(key, value) for key, value in flatten(config)}
    return Run(
        path,
        facts,
        blanked(fields),
        config,
        idle(fields),
        Window.read(summary),
        numbers(summary, "seconds"),
        text(summary, "data"),
    )


def _shortened(path: str, value: object) -> object:
    """Return files that a record names by their names and hashes, not by where they lay."""
    if path == "plugins" and isinstance(value, list):
        return ", ".join(short(str(entry)) for entry in value) or None
    return short(value) if path == "initial" and isinstance(value, str) else value


def remarks(runs: Sequence[Run]) -> list[str]:
    """Say what the means of some runs are of, and which of them stand for a curve that rises."""
    judged = [run for run in runs if run.facts["mta"] is not None]
    if not judged:
        return []
    said = f"MTA and ASR are means of the {span(run.window for run in judged)}."
    if any(_below(run, "worst_asr", "asr") for run in judged):
        said += (
            " Worst ASR is of the rounds of acceptable MTA; where it is below the mean, the other "
            "rounds have the rest."
        )
    rising = remark((str(run.facts["name"]), run.window) for run in judged)
    return [said, rising] if rising else [said]


def _below(run: Run, one: str, other: str) -> bool:
    low, high = run.facts[one], run.facts[other]
    return isinstance(low, float) and isinstance(high, float) and low < high


def select(runs: Sequence[Run], where: Where) -> list[Run]:
    """Return the runs that meet the conditions.

    Raises
    ------
    ConfigError
        For a condition on what no run has, or of a share with a number above 1.
    """
    shares = {column.name for column in MEASURED if column.unit == "%"}
    for one in where.conditions:
        one.refuse_percent(shares)
    by_class = any(is_class(one.name) for one in where.conditions)
    rows = [labelled(run.row, run.path) if by_class else run.row for run in runs]
    holds = where.select(rows)
    return [run for run, chosen in zip(runs, holds, strict=True) if chosen]


def table(runs: Sequence[Run]) -> Table:
    """Return a row for each run, with the fields of their configurations that differ."""
    differing = _beside_the_rate_of_all(runs, _differing(runs))
    short = _short_names(runs, differing)
    columns = [*map(Column, _FIRST), *(Column(short[path]) for path in differing), *MEASURED]
    columns += map(Column, _LAST)
    rows = [
        tuple(
            [run.facts[name] for name in _FIRST]
            + [run.fields.get(path) for path in differing]
            + [run.facts[column.name] for column in MEASURED]
            + [run.facts[name] for name in _LAST]
        )
        for run in runs
    ]
    return Table(tuple(columns), tuple(rows))


def _beside_the_rate_of_all(runs: Sequence[Run], differing: Sequence[str]) -> list[str]:
    """Add the field DPR where the share of all samples is shown: one is taken for the other."""
    shown = any(run.facts["dpr_of_all"] is not None for run in runs)
    if not shown or _RATE in differing or not any(run.fields.get(_RATE) for run in runs):
        return [*differing]
    return [*differing, _RATE]


def grouped(runs: Sequence[Run], by: Sequence[str]) -> Table:
    """Average the finished runs that agree in `by`: mean, standard deviation and number of runs.

    A copy of a run counts once, and so does the mean of runs that repeat one with other results.

    Raises
    ------
    ConfigError
        For a name in `by` that no run has.
    """
    groups = _groups(runs, by)
    columns = [*map(Column, by), Column("n")]
    columns += [replace(column, spread=True) for column in MEASURED]
    rows = [
        (
            *values,
            len(members),
            *(Spread.of(_known(members, column.name), len(members)) for column in MEASURED),
        )
        for values, members in groups
    ]
    return Table(tuple(columns), tuple(rows))


def pooled(runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    """Return the fields, seed aside, in which runs differ that `grouped` puts into one row."""
    fields: dict[str, None] = {}
    for _, members in _groups(runs, by):
        fields.update(dict.fromkeys(_differing(members)))
        for name in ("defense", "attack"):
            if len({str(run.facts[name]) for run in members}) > 1:
                fields[name] = None
    return list(fields)


def repeated(runs: Sequence[Run]) -> int:
    """Return how many finished experiments some runs have several times, with other results."""
    return sum(not _alike(members) for members in _experiments(runs))


def _experiments(runs: Sequence[Run]) -> list[list[Run]]:
    """Return the finished runs by the experiment that they are."""
    found: dict[object, list[Run]] = {}
    for run in runs:
        if run.finished:
            found.setdefault(run.facts["hash"] or run.path, []).append(run)
    return list(found.values())


def _alike(runs: Sequence[Run]) -> bool:
    """Whether runs of one experiment came to the same; the time that they took is no result."""
    results = [column.name for column in MEASURED if column.name != "seconds"]
    return len({tuple(run.facts[name] for name in results) for run in runs}) == 1


def _as_one(runs: Sequence[Run]) -> Run:
    """Return a run that stands for all of an experiment."""
    if _alike(runs):
        return runs[0]
    known = {column.name: _known(runs, column.name) for column in MEASURED}
    means = {name: fmean(values) if values else None for name, values in known.items()}
    return replace(runs[0], facts={**runs[0].facts, **means})


def _groups(runs: Sequence[Run], by: Sequence[str]) -> list[tuple[tuple[object, ...], list[Run]]]:
    """Return the finished runs that have the same in some columns, and what they have there."""
    done = [_as_one(members) for members in _experiments(runs)]
    columns = [_column(done, name) for name in _full(runs, by)]
    groups: dict[str, tuple[tuple[object, ...], list[Run]]] = {}
    for place, run in enumerate(done):
        values = tuple(column[place] for column in columns)
        groups.setdefault(json.dumps(values, default=str), (values, []))[1].append(run)
    return list(groups.values())


def _full(runs: Sequence[Run], by: Sequence[str]) -> list[str]:
    keys = list(dict.fromkeys(key for run in runs for key in run.row))
    return [full_name(name, keys) for name in by] if runs else list(by)


def _column(runs: Sequence[Run], name: str) -> list[object]:
    """Return what each run has in a column; a class with its name, where a run knows it."""
    if not is_class(name):
        return [run.row.get(name) for run in runs]
    found = [labelled(run.row, run.path).get(name) for run in runs]
    named = {(x.dataset, int(x)): x.shown for x in found if isinstance(x, Label) and x.names}

    def shown(value: object) -> object:
        if not isinstance(value, Label):
            return value
        return value.shown if value.names else named.get((value.dataset, int(value)), value.shown)

    return [*map(shown, found)]


def _known(runs: Sequence[Run], name: str) -> list[float]:
    return [value for run in runs if isinstance(value := run.facts[name], float)]


def _differing(runs: Sequence[Run]) -> list[str]:
    """Return the fields in which runs that have them differ, in the order of the schema.

    A field that only some runs have, or that does something in only some, all with one value, says
    no more than what brings it: the type of defense or attack, or the switch that it needs.
    """
    seen: dict[str, set[str]] = {}
    same_code = _is_same_code(runs)
    for run in runs:
        for path, value in run.fields.items():
            of_path = seen.setdefault(path, set())
            if path not in run.idle and (path, value) != _NO_ATTACK:
                of_path.add(json.dumps(value))
    left_out = {*_NOT_COMPARED, "plugins"} if same_code else _NOT_COMPARED
    return [path for path, values in seen.items() if len(values) > 1 and path not in left_out]


def _is_same_code(runs: Sequence[Run]) -> bool:
    """Whether no plugin comes in two states: then the methods' names say which there are."""
    states: dict[str, set[str]] = {}
    for run in runs:
        for part in str(run.fields.get("plugins") or "").split(", "):
            name, _, digest = part.partition("@")
            states.setdefault(name, set()).add(digest)
    return all(len(digests) < 2 for digests in states.values())


def _short_names(runs: Sequence[Run], paths: Sequence[str]) -> dict[str, str]:
    """Name columns by the last part of their path where no other field is called so."""
    every = {path for run in runs for path in run.fields} | {*_FIRST, *_LAST}
    every |= {column.name for column in MEASURED}
    last = [path.rsplit(".", 1)[-1].lower() for path in every]
    return {
        path: short if last.count((short := path.rsplit(".", 1)[-1]).lower()) == 1 else path
        for path in paths
    }


def _state(path: Path, config: Mapping[str, object], summary: Mapping[str, object]) -> str:
    written = text(summary, "state")
    if written or (path / ERROR).is_file() or is_locked(path):
        return state_of(path, written)
    return "started" if config else "unreadable"
