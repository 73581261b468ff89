"""The verdicts on a study as a table, and as a section of a page."""

from collections import Counter
from collections.abc import Iterable, Sequence

from entity.record.consistency import level_in_words
from entity.record.window import remark, span
from entity.results import tables
from entity.results.tables import Column, Spread, Table
from entity.sweep.published import METRICS, Metric
from entity.sweep.setting import setting
from entity.sweep.study import UNKNOWN, Band, Study
from entity.sweep.verdicts import Outcome


def verdict_table(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """Return the table of a study, a row a cell."""
    if study.published is not None:
        return _beside_the_paper(study, outcomes)
    beside = _known(outcomes, _BESIDE)
    judged = _judged(study)
    columns = [*map(Column, study.axes), Column("n")]
    names = list(dict.fromkeys(["mta", "asr", *judged, *beside]))
    for name in names:
        columns.append(_MEANS.get(name) or _BESIDE[name])
        if name in judged:
            columns.append(Column("expected"))
    rows = [
        (
            *outcome.labels,
            outcome.finished,
            *(
                cell
                for name in names
                for cell in (
                    getattr(outcome, name),
                    _expected(getattr(outcome.expected, name, None)),
                )[: 1 + (name in judged)]
            ),
            outcome.verdict,
        )
        for outcome in outcomes
    ]
    return Table((*columns, Column("verdict")), tuple(rows))


def _judged(study: Study) -> list[str]:
    """Return the metrics with a column of expectations: MTA and ASR, or those that have any."""
    names = ("mta", "asr", "worst_asr")
    if not any(each.worst_asr for each in study.expectations):
        return [*names[:2]]
    return [name for name in names if any(getattr(each, name) for each in study.expectations)]


_MEANS = {name: Column(name.upper(), "%", spread=True) for name in ("mta", "asr")}


_BESIDE = {
    "worst_asr": Column("worst ASR", "%"),
    "floor": Column("floor", "%"),
    "victim_accuracy": Column("on victims", "%"),
    "dpr_of_all": Column("DPR of all", "%"),
}


def _known(outcomes: Sequence[Outcome], names: Iterable[str]) -> list[str]:
    """Return the names of what any cell has."""
    return [n for n in names if any(getattr(outcome, n) is not None for outcome in outcomes)]


def _beside_the_paper(study: Study, outcomes: Sequence[Outcome]) -> Table:
    """Return the table of a study of a paper's table: ours, the paper's, and the difference."""
    columns = [*map(Column, study.axes), Column("n")]
    for metric in METRICS:
        columns += [Column(metric.upper(), "%", spread=True), Column("paper"), Column("diff.")]
    columns += [*_BESIDE.values(), Column("verdict")]
    rows = [
        (
            *outcome.labels,
            outcome.finished,
            *_compared(outcome, "mta"),
            *_compared(outcome, "asr"),
            *(getattr(outcome, name) for name in _BESIDE),
            outcome.verdict,
        )
        for outcome in outcomes
    ]
    return Table(tuple(columns), tuple(rows))


def _compared(outcome: Outcome, metric: Metric) -> tuple[Spread | None, str | None, str | None]:
    spread: Spread | None = getattr(outcome, metric)
    figure = outcome.figures.get(metric)
    if figure is None:
        return spread, None, None
    if spread is None:
        return spread, str(figure), None
    return spread, str(figure), f"{100 * (spread.mean - figure.nearest(spread.mean)):+.1f}"


def _expected(band: Band | None) -> str | None:
    return None if band is None else str(band)


def remarks(
    study: Study, outcomes: Sequence[Outcome], mta_at_least: float | None = None
) -> list[str]:
    """Return the text below the table: how to read it, and how many cells did as expected.

    Parameters
    ----------
    study
        The study.
    outcomes
        The results of its cells.
    mta_at_least
        MTA of the rounds that the worst ASR is of; None is a share of the run's last.
    """
    named = [each for outcome in outcomes for each in outcome.windows]
    lines = [*_setting(study, outcomes)]
    lines += [
        "Mean ± standard deviation over the seeds; a run's MTA and ASR are means of its "
        f"{span(window for _, window in named)}."
    ]
    if rising := remark(named):
        lines.append(rising)
    if study.published is not None:
        lines.append(f"Reached is {study.published.tolerance} ({study.source}).")
    if _known(outcomes, ("worst_asr",)):
        lines.append(
            "Worst ASR is the highest of all rounds, and seeds, whose MTA is at least "
            f"{level_in_words(mta_at_least)}."
        )
        lines += _unlike_the_paper_in_the_worst(study, outcomes)
    if _known(outcomes, ("floor",)):
        lines.append("The floor is the ASR of the same run without attack.")
    counts = Counter(outcome.verdict for outcome in outcomes)
    judged = counts["reached"] + counts["missed"]
    if judged:
        lines.append(
            f"{counts['reached']} of {judged} cells reached what is expected"
            + ("." if study.published else f" ({study.source}).")
        )
    if counts["no figure"]:
        lines.append(f"No figure in {counts['no figure']} of {len(outcomes)} cells: {UNKNOWN}.")
    if counts["void"] and study.void is not None:
        lines.append(
            f"Void are {counts['void']} of {len(outcomes)} cells, which count for nobody: where "
            f"{study.void.axis} is {study.void.label} the worst ASR is below "
            f"{100 * study.void.below:g} % in every seed."
        )
    if counts["unknown"] and study.void is not None:
        lines.append(
            f"Unknown are {counts['unknown']} of {len(outcomes)} cells: whether the attack works "
            f"there where {study.void.axis} is {study.void.label}; those runs are not finished."
        )
    if counts["unfinished"]:
        lines.append(
            f"Unfinished are {counts['unfinished']} of {len(outcomes)} cells; the same command "
            "goes on with them."
        )
    return [*lines, *study.notes, *_doubts(study, outcomes)]


def _unlike_the_paper_in_the_worst(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    """Say that the worst ASR is not judged, and which cells would miss the paper's by it."""
    if study.published is None:
        return []
    said = (
        "It is not judged, as the paper does not say of which rounds its figures are; but it asks "
        "for a low ASR in each of these rounds."
    )
    above = [
        " ".join(outcome.labels)
        for outcome in outcomes
        if outcome.verdict == "reached" and outcome.worst_asr is not None
        if (figure := outcome.figures.get("asr")) is not None
        for nearest in [figure.nearest(outcome.worst_asr)]
        if outcome.worst_asr - nearest > study.published.tolerance.of("asr", nearest) + 1e-9
    ]
    if above:
        said += f" Reached, but further above the paper's by it: {_named(above)}."
    return [said]


def _setting(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    """Say what the cells of a paper's table share, if any of them has a configuration."""
    cells = [(each.cell, each.config) for each in outcomes if each.config is not None]
    return [setting(study, cells)] if study.published is not None and cells else []


def _doubts(study: Study, outcomes: Sequence[Outcome]) -> list[str]:
    """Say why figures have a question mark."""
    if study.published is None:
        return []
    reasons: dict[str, list[str]] = {}
    for outcome in outcomes:
        for why in study.published.reasons(outcome.cell):
            reasons.setdefault(why, []).append(" ".join(outcome.labels))
    return [
        f"A question mark ({_named(cells)}): {why}; the nearer figure counts."
        for why, cells in reasons.items()
    ]


def _named(cells: Sequence[str]) -> str:
    return ", ".join(cells) if len(cells) < 4 else f"{len(cells)} cells"


def to_markdown(
    study: Study, outcomes: Sequence[Outcome], made_by: str, mta_at_least: float | None = None
) -> str:
    """Return the table as a section of a Markdown page.

    Parameters
    ----------
    study
        The study.
    outcomes
        The results of its cells.
    made_by
        Markdown: which command of which version made the table.
    mta_at_least
        MTA of the rounds that the worst ASR is of; None is a share of the run's last.
    """
    table = tables.to_markdown(verdict_table(study, outcomes))
    below = " ".join([*remarks(study, outcomes, mta_at_least), f"{made_by}."])
    return f"## {study.title}\n\n{table}\n{below}\n"
