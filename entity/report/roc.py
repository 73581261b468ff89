"""How well a defense's scores part poisoned updates from honest ones: receiver operating curves.

A run's scores of all rounds are pooled, as one threshold for all of them would judge; beside that
area stands the one within rounds, which scores that change their scale from round to round leave
untouched. Whether high or low scores are suspicious is read from the defense's own verdicts, never
from who is malicious, so an area may be below one half.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from entity.report.entries import Entry, Group
from entity.report.plotly_figure import Figure, Object, plain
from entity.report.runs import Round, RunRecord
from entity.report.seed_bands import by_group
from entity.results.formatting import percent

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

MOST_POINTS = 150
"""Corners of a curve that are drawn."""


@dataclass(frozen=True)
class Roc:
    """The curve of one group of runs."""

    group: Group
    fpr: Floats
    tpr: Floats
    auc: float
    """Area under the curve of all rounds together."""
    within: float
    """Share of the pairs of a poisoned and an honest update of one round that are in order."""
    decided: tuple[float, float] | None
    """(FPR, TPR) of the verdicts that were given; None where nobody was refused."""
    poisoned: int
    honest: int


def roc_points(scores: Floats, poisoned: Bools) -> tuple[Floats, Floats]:
    """Return false and true positive rates for every threshold, ties as one step.

    A test judges this by scikit-learn's `roc_curve`, which takes half a second to import.

    Parameters
    ----------
    scores
        (n,), higher is more suspicious.
    poisoned
        (n,), the truth, with at least one of each kind.

    Examples
    --------
    >>> fpr, tpr = roc_points(np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, True, False, False]))
    >>> fpr.tolist(), tpr.tolist()
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0])
    """
    order = np.argsort(-scores, kind="stable")
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    caught = np.cumsum(poisoned[order])[last_of_tie]
    alarms = np.cumsum(~poisoned[order])[last_of_tie]
    return np.append(0.0, alarms / alarms[-1]), np.append(0.0, caught / caught[-1])


def ordered_pairs(scores: Floats, poisoned: Bools) -> float:
    """Count the pairs of a poisoned and an honest one whose scores are in order, ties as half.

    The statistic of Mann and Whitney (1947); divided by all pairs it is the area under the curve.
    """
    count = int(poisoned.sum())
    return float(_ranks(scores)[poisoned].sum()) - count * (count + 1) / 2


def _ranks(values: Floats) -> Floats:
    """Return the rank of every value, from 1; ties share the mean of theirs."""
    from scipy.stats import rankdata  # a second of every command's start, and only needed here

    return rankdata(values)


def suspicious_end(rounds: Sequence[Round]) -> int:
    """Return 1 if a defense refused, or weighed less, what it scored high; -1 if the reverse.

    1 where its verdicts do not say.
    """
    lean = 0.0
    for each in rounds:
        clients = [one for one in each.selected if one in each.scores]
        scores = np.array([each.scores[one] for one in clients])
        out = np.array([one in each.refused for one in clients], dtype=bool)
        if out.any() and not out.all():
            lean += ordered_pairs(scores, out) / (out.sum() * (~out).sum()) - 0.5
        elif clients and all(one in each.weights for one in clients):
            weights = np.array([each.weights[one] for one in clients])
            if np.ptp(weights) > 0 and np.ptp(scores) > 0:
                ranks = np.corrcoef(_ranks(scores), _ranks(weights))
                lean -= float(ranks[0, 1]) / 2
    return -1 if lean < 0 else 1


def roc_of(entries: Sequence[Entry]) -> Roc | None:
    """Pool the runs of a group; None without scores of both kinds of updates."""
    scores: list[Floats] = []
    truth: list[Bools] = []
    inside, pairs = 0.0, 0
    for entry in entries:
        sign = suspicious_end(entry.run.rounds)
        for each in entry.run.rounds:
            clients = [one for one in each.selected if one in each.scores]
            values = sign * np.array([each.scores[one] for one in clients], dtype=np.float64)
            bad = np.array([one in each.malicious for one in clients], dtype=bool)
            scores.append(values)
            truth.append(bad)
            if bad.any() and not bad.all():
                inside += ordered_pairs(values, bad)
                pairs += int(bad.sum() * (~bad).sum())
    if not scores:
        return None
    every, poisoned = np.concatenate(scores), np.concatenate(truth)
    if not poisoned.any() or poisoned.all():
        return None
    fpr, tpr = roc_points(every, poisoned)
    count = int(poisoned.sum())
    honest = len(poisoned) - count
    return Roc(
        entries[0].group,
        fpr,
        tpr,
        ordered_pairs(every, poisoned) / (count * honest),
        inside / pairs if pairs else float("nan"),
        _decided([entry.run for entry in entries]),
        count,
        honest,
    )


def _decided(runs: Sequence[RunRecord]) -> tuple[float, float] | None:
    rounds = [each for run in runs for each in run.rounds]
    poisoned = sum(len(each.malicious) for each in rounds)
    honest = sum(len(each.selected) for each in rounds) - poisoned
    caught = sum(len(each.malicious & each.refused) for each in rounds)
    alarms = sum(len(each.refused) for each in rounds) - caught
    return (alarms / honest, caught / poisoned) if caught + alarms and honest and poisoned else None


def rocs(entries: Sequence[Entry]) -> list[Roc]:
    """Return the curves of all groups that have one."""
    return [roc for group in by_group(entries) if (roc := roc_of(group))]


def draw_rocs(found: Sequence[Roc]) -> Figure | None:
    """Draw the curves into one square, with a sign at what was decided; None for none."""
    if not found:
        return None
    chance: Object = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, 1],
        "y": [0, 1],
        "line": {"color": "--rule", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    curves = [_curve(roc) for roc in found]
    for place, (roc, curve) in enumerate(zip(found, curves, strict=True)):
        # Of curves that are one, as those of all perfect scores are, the lower ones are wider.
        above = sum(
            curve["x"] == one["x"] and curve["y"] == one["y"] for one in curves[place + 1 :]
        )
        colour, dash = roc.group.colour, roc.group.dash
        curve["line"] = {"color": colour, "dash": dash, "width": 2 + 4 * above}
    traces = [chance, *curves, *(_decision(roc) for roc in found if roc.decided)]
    axis: Object = {"range": [-0.01, 1.01], "tickformat": ".0%", "tick0": 0, "dtick": 0.2}
    layout: Object = {
        "hovermode": "closest",
        "xaxis": axis | {"title": {"text": "honest updates flagged (FPR)"}, "constrain": "domain"},
        "yaxis": axis | {"title": {"text": "poisoned updates flagged (TPR)"}, "scaleanchor": "x"},
        "margin": {"l": 60, "r": 14, "t": 12, "b": 46},
    }
    areas = "; ".join(f"{roc.group.label}: area {roc.auc:.3f}" for roc in found)
    return Figure(traces, layout, 400, f"Receiver operating curves of the scores. {areas}.")


def _curve(roc: Roc) -> Object:
    name = plain(roc.group.label)
    drawn = _corners(roc.fpr, roc.tpr)
    return {
        "type": "scatter",
        "name": name,
        "meta": roc.group.index,
        "mode": "lines",
        "x": [round(float(x), 4) for x in roc.fpr[drawn]],
        "y": [round(float(y), 4) for y in roc.tpr[drawn]],
        "hovertemplate": f"<b>{name}</b>, AUC {roc.auc:.3f}<br>"
        "TPR %{y:.1%} at FPR %{x:.1%}<extra></extra>",
    }


def _decision(roc: Roc) -> Object:
    """Mark the rates of the verdicts that were given."""
    assert roc.decided is not None
    name = plain(roc.group.label)
    return {
        "type": "scatter",
        "name": name,
        "meta": roc.group.index,
        "mode": "markers",
        "x": [roc.decided[0]],
        "y": [roc.decided[1]],
        "marker": {
            "symbol": roc.group.symbol,
            "size": 10,
            "color": "--surface",
            "line": {"color": roc.group.colour, "width": 2},
        },
        "cliponaxis": False,
        "hovertemplate": f"<b>{name}</b>, as it decided<br>"
        "TPR %{y:.1%} at FPR %{x:.1%}<extra></extra>",
    }


def _corners(fpr: Floats, tpr: Floats) -> list[int]:
    """Leave out points on straight lines, and of very many all but evenly spread ones.

    `drop_intermediate` of scikit-learn's `roc_curve` leaves out evenly spaced points alone.
    """
    turns = np.abs(np.diff(fpr[:-1]) * np.diff(tpr)[1:] - np.diff(tpr[:-1]) * np.diff(fpr)[1:])
    kept = [0, *(np.flatnonzero(turns > 1e-12) + 1).tolist(), len(fpr) - 1]
    if len(kept) > MOST_POINTS:
        kept = [kept[place] for place in np.linspace(0, len(kept) - 1, MOST_POINTS).astype(int)]
    return kept


def table(found: Sequence[Roc]) -> list[tuple[Group, list[str]]]:
    """Write the areas and rates of each curve for the table beside the figure."""
    rows: list[tuple[Group, list[str]]] = []
    for roc in found:
        fpr, tpr = roc.decided or (None, None)
        within = f"{roc.within:.3f}" if roc.within == roc.within else percent(None)
        rows.append((roc.group, [f"{roc.auc:.3f}", within, percent(tpr), percent(fpr)]))
    return rows
