"""Where the time of each run went, as stacked bars."""

from collections.abc import Iterable, Mapping, Sequence

from entity.record.json_fields import numbers
from entity.report.entries import Entry
from entity.report.plotly_figure import Figure, Object, plain, shorten, shorten_all
from entity.report.runs import RunRecord
from entity.report.seed_bands import by_group
from entity.results.formatting import duration, memory

FIXED = {"train": "--phase-train", "evaluate": "--phase-evaluate", "other": "--phase-other"}
FREE = ("--phase-1", "--phase-2", "--phase-3", "--phase-4", "--phase-5", "--phase-6")
PATTERNS = ("", "/", ".", "x", "-", "|")
ROW = 46


def draw_phases(entries: Sequence[Entry]) -> Figure | None:
    """Draw a bar for each group of runs that has times, their mean; None if none has.

    `page.js` adds the height of the legend, which depends on the width.
    """
    spent = [(group, mean_by_phase(group)) for group in by_group(entries)]
    spent = [(group, phases) for group, phases in spent if sum(phases.values()) > 0]
    if not spent:
        return None
    labels = shorten_all([group[0].group.label for group, _ in spent])
    names = list(dict.fromkeys(phase for _, phases in spent for phase in phases))
    steps = [name for name in names if name not in FIXED]
    order = [name for name in ("train", *steps, "evaluate", "other") if name in names]
    longest = max(sum(phases.values()) for _, phases in spent)
    unit, size = ("s", 1) if longest < 300 else ("min", 60) if longest < 7200 else ("h", 3600)
    traces = [
        _bars(phase, spent, size, _fill(phase, steps))
        for phase in order
        if any(phases.get(phase, 0) > 0 for _, phases in spent)
    ]
    layout: Object = {
        "barmode": "stack",
        "bargap": 0.55,
        "hovermode": "closest",
        "showlegend": True,
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "xaxis": {"title": {"text": f"wall-clock time ({unit})"}, "rangemode": "tozero"},
        "yaxis": {
            "range": [len(spent) - 0.5, -0.7],
            "showticklabels": False,
            "showgrid": False,
            "ticks": "",
        },
        "annotations": [
            _name(row, labels[row], group, sum(phases.values()))
            for row, (group, phases) in enumerate(spent)
        ],
        "margin": {"l": 12, "r": 14, "t": 40, "b": 46},
    }
    bars = "; ".join(
        f"{group[0].group.label}: "
        + ", ".join(f"{name} {duration(s)}" for name, s in phases.items())
        for group, phases in spent[:12]
    )
    height = 84 + ROW * len(spent)
    layout["meta"] = {"below": height, "longest": max(len(str(each["name"])) for each in traces)}
    return Figure(traces, layout, height, f"Time by phase. {bars}.")


def mean_by_phase(entries: Sequence[Entry]) -> dict[str, float]:
    """Return the mean time of each phase over the runs of a group."""
    sums = _added(seconds_by_phase(entry.run) for entry in entries)
    return {phase: seconds / len(entries) for phase, seconds in sums.items()}


def seconds_by_phase(run: RunRecord) -> dict[str, float]:
    """Split the time of a run so that the parts add up to its total.

    Phases that a defense reports are steps of its aggregation and stand in its place, with the
    rest as "aggregate"; a total beyond the sum leaves "other" (saving, loading data). Where updates
    are streamed, they are added up while clients train, and that time is taken out of training.
    """
    said = numbers(run.summary, "seconds") or _added(each.seconds for each in run.rounds)
    total = said.pop("total", 0.0)
    train, aggregate, evaluate = (said.pop(key, 0.0) for key in ("train", "aggregate", "evaluate"))
    streamed = said.pop("aggregate_accumulate", 0.0)
    steps = {
        phase.removeprefix("aggregate_").replace("_", " "): seconds
        for phase, seconds in said.items()
        if seconds > 0
    }
    if sum(steps.values()) <= 1.01 * aggregate:
        aggregate = max(0.0, aggregate - sum(steps.values()))
    phases = {
        "train": max(0.0, train - streamed),
        "accumulate": streamed,
        **steps,
        "aggregate": aggregate,
        "evaluate": evaluate,
    }
    phases["other"] = total - sum(phases.values())
    visible = 1e-3 * max(total, sum(phases.values()))
    return {phase: seconds for phase, seconds in phases.items() if seconds > visible}


def _added(rounds: Iterable[Mapping[str, float]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for seconds in rounds:
        for phase, spent in seconds.items():
            sums[phase] = sums.get(phase, 0.0) + spent
    return sums


def _fill(phase: str, steps: Sequence[str]) -> Object:
    """Colour of a phase; steps of a defense have a pattern too, so that colour is not needed.

    After six steps colours come again, with other patterns: 36 steps look different.
    """
    if phase in FIXED:
        return {"color": FIXED[phase]}
    place = steps.index(phase)
    pattern: Object = {
        "fillmode": "overlay",
        "shape": PATTERNS[(place + place // len(FREE)) % len(PATTERNS)],
        "fgcolor": "--surface",
        "fgopacity": 0.55,
        "size": 6,
        "solidity": 0.25,
    }
    return {"color": FREE[place % len(FREE)], "pattern": pattern}


def _bars(
    phase: str,
    spent: Sequence[tuple[Sequence[Entry], Mapping[str, float]]],
    size: int,
    fill: Object,
) -> Object:
    return {
        "type": "bar",
        "orientation": "h",
        "name": plain(shorten(phase)),
        "y": list(range(len(spent))),
        "x": [phases.get(phase, 0.0) / size for _, phases in spent],
        "customdata": [
            [plain(group[0].group.label), duration(phases.get(phase, 0.0))]
            for group, phases in spent
        ],
        "hovertemplate": "<b>%{customdata[0]}</b><br>%{fullData.name}: %{customdata[1]}"
        "<extra></extra>",
        "marker": fill | {"line": {"color": "--surface", "width": 1}},
    }


def _name(row: int, name: str, group: Sequence[Entry], seconds: float) -> Object:
    """Write name, total and memory above a bar: beside it, names would take a phone's width."""
    memories = [mb for entry in group if (mb := entry.outcome.memory_mb) is not None]
    used = f", {memory(max(memories))}" if memories else ""
    return {
        "text": f"{plain(name)}: {duration(seconds)}{used}",
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        "y": row - 0.22,
        "yanchor": "bottom",
        "showarrow": False,
    }
