"""Whether the runs of a study reached what is expected, as a table and as a section of a page."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from entity.results import tables
from entity.results.tables import Column, Spread, Table
from entity.sweep.cells import Cell
from entity.sweep.study import UNKNOWN, Band, Expectation, Study

Verdict = Literal["reached", "missed", "unfinished", "no figure"]


@dataclass(frozen=True)
class Outcome:
    """The results of a cell over its seeds, and its expectation."""

    labels: tuple[str, ...]
    runs: int
    finished: int
    mta: Spread | None
    asr: Spread | None
    expected: Expectation | None

    @property
    def verdict(self) -> Verdict:
        """Judge the means; the mean of half of the seeds is none."""
        if self.finished < self.runs:
            return "unfinished"
        if self.expected is None:
            return "no figure"
        met = (
            spread is not None and spread.mean in band
            for spread, band in ((self.mta, self.expected.mta), (self.asr, self.expected.asr))
            if band is not None
        )
        return "reached" if all(met) else "missed"


def judge(study: Study, cells: Sequence[Cell]) -> list[Outcome]:
    """Sum up runs over their seeds, a row for each other assignment."""
    rows: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        rows.setdefault(tuple(cell.labels[name] for name in study.axes), []).append(cell)
    return [
        Outcome(
            labels,
            len(row),
            sum(cell.state == "finished" for cell in row),
            _spread(row, "mta"),
            _spread(row, "asr"),
            study.expectation(row[0].labels),
        )
        for labels, row in rows.items()
    ]


def _spread(cells: Sequence[Cell], name: str) -> Spread | None:
    values = [
        value
        for cell in cells
        if cell.done is not None and cell.done.finished
        if isinstance(value := cell.done.facts[name], float) and math.isfinite(value)
    ]
    return Spread.of(values)


def verdict_table(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """Return the table of a study, a row a cell."""
    columns = [*map(Column, study.axes), Column("n")]
    for metric in ("MTA", "ASR"):
        columns += [Column(metric, "%", spread=True), Column("expected")]
    rows = [
        (
            *outcome.labels,
            outcome.finished,
            outcome.mta,
            _expected(outcome.expected and outcome.expected.mta),
            outcome.asr,
            _expected(outcome.expected and outcome.expected.asr),
            outcome.verdict,
        )
        for outcome in outcomes
    ]
    return Table((*columns, Column("verdict")), tuple(rows))


def _expected(band: Band | None) -> str | None:
    return None if band is None else str(band)


def remarks(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    """Return the text below the table: how to read it, and how many cells did as expected."""
    lines = [
        "Mean ± standard deviation over the seeds; a run's MTA and ASR are means of its last 10 "
        "rounds."
    ]
    counts = Counter(outcome.verdict for outcome in outcomes)
    judged = counts["reached"] + counts["missed"]
    if judged:
        lines.append(
            f"{counts['reached']} of {judged} cells reached what is expected ({study.source})."
        )
    if counts["no figure"]:
        lines.append(f"No figure in {counts['no figure']} of {len(outcomes)} cells: {UNKNOWN}.")
    if counts["unfinished"]:
        lines.append(
            f"Unfinished are {counts['unfinished']} of {len(outcomes)} cells; the same command "
            "goes on with them."
        )
    return lines


def to_markdown(study: Study, outcomes: Sequence[Outcome], made_by: str) -> str:
    """Return the table as a section of a Markdown page.

    Parameters
    ----------
    study
        The study.
    outcomes
        The results of its cells.
    made_by
        Markdown: which command of which version made the table.
    """
    table = tables.to_markdown(verdict_table(study, outcomes))
    below = " ".join([*remarks(study, outcomes), f"{made_by}."])
    return f"## {study.title}\n\n{table}\n{below}\n"
