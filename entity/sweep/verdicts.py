"""Whether the runs of a study reached what is expected."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from entity.config.fields import ExperimentConfig
from entity.record.window import Window
from entity.results.tables import Spread
from entity.sweep.cells import Cell, finite_facts
from entity.sweep.published import METRICS, Figure, Metric
from entity.sweep.study import Expectation, Study
from entity.sweep.void import unknown_cells, void_cells

Verdict = Literal["reached", "missed", "unfinished", "void", "unknown", "no figure"]


@dataclass(frozen=True)
class Outcome:
    """The results of a cell over its seeds, and its expectation."""

    labels: tuple[str, ...]
    runs: int
    finished: int
    mta: Spread | None
    asr: Spread | None
    expected: Expectation | None
    worst_asr: float | None = None
    """The highest of all seeds; what follows are means."""
    floor: float | None = None
    """ASR of the same runs without attack."""
    victim_accuracy: float | None = None
    dpr_of_all: float | None = None
    figures: Mapping[Metric, Figure] = field(default_factory=dict[Metric, Figure])
    """Those of a paper."""
    agrees: bool = True
    """Whether the results are near all of them."""
    cell: Mapping[str, str] = field(default_factory=dict[str, str])
    """The label of every axis, in one of its runs."""
    config: ExperimentConfig | None = None
    """Of the same run."""
    windows: tuple[tuple[str, Window | None], ...] = ()
    """Name and window of each finished run."""
    void: bool = False
    """Whether the attack works in none of its runs where nobody defends."""
    unknown: bool = False
    """Whether nobody knows that of one of them, as its twin is not finished."""

    @property
    def verdict(self) -> Verdict:
        """Judge the means; the mean of half of the seeds is none."""
        if self.void:
            return "void"
        if self.finished < self.runs:
            return "unfinished"
        if self.figures:
            return "reached" if self.agrees else "missed"
        if self.expected is None:
            return "no figure"
        if self.unknown:
            return "unknown"
        mta, asr = (None if each is None else each.mean for each in (self.mta, self.asr))
        met = (
            value is not None and value in band
            for value, band in (
                (mta, self.expected.mta),
                (asr, self.expected.asr),
                (self.worst_asr, self.expected.worst_asr),
            )
            if band is not None
        )
        return "reached" if all(met) else "missed"


def judge(study: Study, cells: Sequence[Cell], undefended: Sequence[Cell] = ()) -> list[Outcome]:
    """Sum up runs over their seeds, a row for each other assignment; void runs are left out.

    Where an attack was expected to work undefended, and does not, that cell is missed and not void.

    Parameters
    ----------
    study
        The study.
    cells
        Its cells, or some of them.
    undefended
        Their twins in which nobody defends, of `void.twins`, if these are not among them.
    """
    void = void_cells(study.void, cells, undefended)
    unknown = unknown_cells(study.void, cells, undefended)
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        rows.setdefault(tuple(cell.labels[name] for name in study.axes), []).append(cell)
    outcomes: list[Outcome] = []
    for labels, row in rows.items():
        counted = [
            cell for cell in row if cell.identity not in void or _is_to_work(study, cell.labels)
        ]
        outcomes.append(
            replace(
                _outcome(study, labels, counted or row),
                void=not counted,
                unknown=any(cell.identity in unknown for cell in counted),
            )
        )
    return outcomes


def _is_to_work(study: Study, cell: Mapping[str, str]) -> bool:
    """Say whether a study expects of an undefended cell how far the attack comes."""
    rule, expected = study.void, study.expectation(cell)
    if rule is None or expected is None or cell[rule.axis] != rule.label:
        return False
    return expected.asr is not None or expected.worst_asr is not None


def _outcome(study: Study, labels: tuple[str, ...], row: Sequence[Cell]) -> Outcome:
    cell, paper = row[0].labels, study.published
    measured = {metric: _spread(row, metric) for metric in METRICS}
    figures: dict[Metric, Figure] = {}
    for metric in METRICS:
        figure = None if paper is None else paper.figure(metric, cell)
        if figure is not None:
            figures[metric] = figure
    means: dict[Metric, float] = {
        metric: spread.mean for metric in figures if (spread := measured[metric]) is not None
    }
    return Outcome(
        labels,
        len(row),
        sum(cell.state == "finished" for cell in row),
        measured["mta"],
        measured["asr"],
        study.expectation(cell),
        worst_asr=max(finite_facts(row, "worst_asr"), default=None),
        floor=_mean(row, "floor"),
        victim_accuracy=_mean(row, "victim_accuracy"),
        dpr_of_all=_mean(row, "dpr_of_all"),
        figures=figures,
        cell=cell,
        config=row[0].config,
        windows=tuple(
            (each.name, each.done.window) for each in row if each.done and each.done.finished
        ),
        agrees=paper is None or (len(means) == len(figures) and paper.agrees(cell, means)),
    )


def _spread(cells: Sequence[Cell], name: str) -> Spread | None:
    return Spread.of(finite_facts(cells, name))


def _mean(cells: Sequence[Cell], name: str) -> float | None:
    spread = _spread(cells, name)
    return None if spread is None else spread.mean
