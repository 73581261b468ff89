"""What a finished run came to, as a line of docs/results/configurations.jsonl."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from pages import ROOT, commit, read_records, write_records

from claim.design import NAMES, Labels, design, experiments, identities
from entity.defenses import DEFENSES
from entity.record.directory import read_summary
from entity.record.json_fields import mapping, number
from entity.record.rounds import whole_lines
from entity.results import store
from entity.results.store import Run

STORE = ROOT / "docs" / "results" / "configurations.jsonl"


@dataclass(frozen=True)
class Line:
    """A run; shares of one, None where there is none."""

    study: str
    cell: Mapping[str, str]
    seed: int
    config_hash: str
    commit: str
    """Of the code that wrote the line."""
    rounds: int
    mta: float | None
    """Of the last evaluated round, as `asr`."""
    asr: float | None
    worst_asr: float | None
    """Highest ASR of the rounds whose MTA is at least 90 % of the last one's."""
    worst_round: int | None
    floor: float | None
    """ASR of the same run without attack."""
    tpr: float | None
    """Share of the attackers' updates that were refused, over the whole run."""
    fpr: float | None
    seconds: float
    """Of one thread, however busy the machine was."""
    separation: float | None = None
    """Of a defense that clusters by Ward: by how many times the last merge of its tree is as high
    as the one before, in the median round."""
    revision: int | None = None
    """Of the defense; older lines do not say it."""
    experiment: str | None = None
    """Its identity but for the code of its methods, of a line that says its revision."""

    @property
    def labels(self) -> Labels:
        """Its cell, as its design names it."""
        return tuple(self.cell.values())

    @property
    def outdated(self) -> bool:
        """Whether its defense has been revised since."""
        kind = DEFENSES.get(self.cell.get("defense", ""))
        return kind is not None and self.revision is not None and self.revision < kind.revision


def read_lines(path: Path = STORE) -> list[Line]:
    """Return the lines of a file; none if there is no file."""
    return [Line(**record) for record in read_records(path)]


def write_lines(lines: Iterable[Line], path: Path = STORE) -> None:
    """Write lines in the order of the studies."""
    order = {
        (name, labels, seed): place
        for name in NAMES
        for place, (labels, seed) in enumerate(
            (labels, seed) for labels, seeds in design(name).seeds.items() for seed in seeds
        )
    }
    chosen = sorted(
        lines, key=lambda line: (NAMES.index(line.study), order[line.study, line.labels, line.seed])
    )
    write_records(path, map(asdict, chosen))


def exported(folder: Path, known: Sequence[Line]) -> list[Line]:
    """Return the lines of all finished runs in and below a folder, beside those known before.

    Parameters
    ----------
    folder
        Of the runs of all studies; need not be there.
    known
        Lines from before. One of an experiment that is planned no more is dropped; one whose
        defense has been revised stays until the folder has its cell; one that the folder has, too,
        stays as it is but for its floor and its separation.
    """
    planned = {name: identities(name) for name in NAMES}
    kept = {
        (line.study, line.labels, line.seed): line
        for line in known
        if line.study in planned and is_planned(line, planned[line.study])
    }
    for run in store.collect([folder]) if folder.is_dir() else []:
        for name, cells in planned.items():
            identity = str(run.facts["hash"])
            if run.finished and identity in cells:
                found = _line(name, *cells[identity], run)
                before = kept.get((name, found.labels, found.seed))
                if before is not None and before.config_hash == identity:
                    floor = before.floor if found.floor is None else found.floor
                    again = {"floor": floor, "separation": found.separation}
                    found = Line(**{**asdict(before), **again})
                kept[name, found.labels, found.seed] = found
    return list(kept.values())


def is_planned(line: Line, planned: Mapping[str, tuple[Labels, int]]) -> bool:
    """Whether a line is of an experiment of a study, or was before its defense was revised."""
    here = (line.labels, line.seed)
    if planned.get(line.config_hash) == here:
        return True
    return line.outdated and experiments(line.study).get(here) == line.experiment is not None


def _line(name: str, labels: Labels, seed: int, run: Run) -> Line:
    summary = read_summary(run.path)
    worst = mapping(summary.get("consistency"))
    place = number(worst, "worst_round")
    return Line(
        study=name,
        cell=dict(zip(design(name).axes, labels, strict=True)),
        seed=seed,
        config_hash=str(run.facts["hash"]),
        commit=commit(),
        rounds=int(number(summary, "rounds") or 0),
        mta=number(mapping(summary.get("mta")), "final"),
        asr=number(mapping(summary.get("asr")), "final"),
        worst_asr=number(worst, "worst_asr"),
        worst_round=None if place is None else int(place),
        floor=_share(run.facts["floor"]),
        tpr=_share(run.facts["tpr"]),
        fpr=_share(run.facts["fpr"]),
        seconds=_share(run.facts["seconds"]) or 0.0,
        separation=_separation(run.path),
        revision=DEFENSES[str(run.facts["defense"])].revision,  # its identity is today's
        experiment=experiments(name)[labels, seed],
    )


def _separation(folder: Path) -> float | None:
    rounds = map(json.loads, whole_lines(folder))
    found = [number(mapping(each.get("diagnostics")), "separation") for each in rounds]
    known = [each for each in found if each is not None]
    return round(median(known), 3) if known else None


def _share(value: object) -> float | None:
    return value if isinstance(value, float) else None
