"""What a finished run came to, as a line of docs/results/rivals.jsonl."""

import tempfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pages import ROOT, commit, read_records, write_records

from entity.record.directory import read_summary
from entity.record.json_fields import mapping, number
from entity.results import store
from entity.results.store import Run
from entity.sweep import study
from entity.sweep.cells import expand

STORE = ROOT / "docs" / "results" / "rivals.jsonl"
NAME = "rivals"


@dataclass(frozen=True)
class Line:
    """A run; shares of one, None where there is none."""

    data: str
    attack: str
    defense: str
    seed: int
    config_hash: str
    commit: str
    """Of the code that wrote the line."""
    mta: float | None
    """Mean of the last ten rounds."""
    worst_asr: float | None
    """Highest ASR of the rounds whose MTA is at least 90 % of the last one's."""
    tpr: float | None
    """Share of the attackers' updates that were refused, over the whole run."""
    fpr: float | None
    aggregate: float
    """Seconds of the defense a round."""

    @property
    def planned(self) -> "Planned":
        """Which run of the study it is."""
        return Planned(self.data, self.attack, self.defense, self.seed)


@dataclass(frozen=True)
class Planned:
    """A run of the study."""

    data: str
    attack: str
    defense: str
    seed: int


def planned_of(labels: Mapping[str, str]) -> Planned:
    """Return which run of the study has these labels."""
    return Planned(labels["data"], labels["attack"], labels["defense"], int(labels["seed"]))


@cache
def planned() -> tuple[Planned, ...]:
    """Return the runs of the study, in the order of its file."""
    return tuple(planned_of(cell) for cell in study.find(NAME).grid.assignments())


@cache
def identities() -> dict[str, Planned]:
    """Return all runs of the study by their identities; takes half a minute."""
    return identities_of(frozenset(planned()))


def identities_of(wanted: Collection[Planned]) -> dict[str, Planned]:
    """Return some runs of the study by their identities."""
    grid = study.find(NAME).grid
    chosen = [labels for labels in grid.assignments() if planned_of(labels) in wanted]
    with tempfile.TemporaryDirectory() as folder:
        cells = expand(grid, Path(folder) / "none", chosen)
    return {cell.identity: planned_of(cell.labels) for cell in cells}


def read_lines(path: Path = STORE) -> list[Line]:
    """Return the lines of a file; none if there is no file."""
    return [Line(**record) for record in read_records(path)]


def write_lines(lines: Iterable[Line], path: Path = STORE) -> None:
    """Write lines in the order of the study."""
    order = {each: place for place, each in enumerate(planned())}
    chosen = sorted(lines, key=lambda line: order[line.planned])
    write_records(path, map(asdict, chosen))


def exported(folder: Path, known: Sequence[Line]) -> list[Line]:
    """Return the lines of all finished runs in and below a folder, beside those known before.

    Parameters
    ----------
    folder
        Of the runs.
    known
        Lines from before; those of experiments that are planned no more are dropped.
    """
    kept = {line.config_hash: line for line in known if line.config_hash in identities()}
    for run in store.collect([folder]):
        identity = str(run.facts["hash"])
        if run.finished and identity in identities() and identity not in kept:
            kept[identity] = line_of(identities()[identity], identity, run)
    return list(kept.values())


def line_of(of: Planned, identity: str, run: Run) -> Line:
    """Return the line of a finished run."""
    summary = read_summary(run.path)
    seconds = number(mapping(summary.get("seconds")), "aggregate") or 0.0
    return Line(
        **asdict(of),
        config_hash=identity,
        commit=commit(),
        mta=number(mapping(summary.get("mta")), "last10"),
        worst_asr=number(mapping(summary.get("consistency")), "worst_asr"),
        tpr=_share(run.facts["tpr"]),
        fpr=_share(run.facts["fpr"]),
        aggregate=seconds / max(1, int(number(summary, "rounds") or 0)),
    )


def _share(value: object) -> float | None:
    return value if isinstance(value, float) else None
