"""What a defense costs beside what it brings: worst ASR, accuracy lost, seconds a round.

Means over the blocks whose attack works (`blocks.py`) and that have the undefended run, to which
accuracy is compared. A defense is on the front if no other is as good in both and better in one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from entity.report.blocks import Block
from entity.report.entries import Entry
from entity.report.plotly_figure import Figure, Object, plain, shorten_all
from entity.report.point_names import PLACES, places
from entity.results.formatting import percent

Cost = Literal["lost", "seconds"]
TITLES: dict[Cost, str] = {
    "lost": "MTA lost beside undefended (points)",
    "seconds": "seconds of the defense a round",
}


@dataclass(frozen=True)
class Offer:
    """A defense, by its means over the blocks that have it."""

    defense: str
    worst_asr: float
    lost: float
    """MTA of the undefended runs minus its own, a share of one."""
    seconds: float
    """Of its aggregation, a round."""
    blocks: int

    def cost(self, kind: Cost) -> float:
        """Return a cost in the unit of its axis."""
        return 100 * self.lost if kind == "lost" else self.seconds


def offers(found: Sequence[Block]) -> list[Offer]:
    """Return the defenses of the blocks that all of them share, the lowest worst ASR first.

    Blocks without the undefended run, or in which it lacks accuracy, do not count.
    """
    counting = [block for block in found if block.attacked and block.undefended is not None]
    names = {name for block in counting for name in block.runs}
    whole = [block for block in counting if block.runs.keys() >= names]
    made: list[Offer] = []
    for name in sorted(names):
        rows = [
            (entry.outcome.worst_asr, bare.outcome.mta - entry.outcome.mta, _seconds(entry))
            for block in whole
            if (bare := block.undefended) is not None
            and (entry := block.runs[name]).outcome.worst_asr is not None
            and entry.outcome.mta is not None
            and bare.outcome.mta is not None
        ]
        if rows:
            worst, lost, seconds = map(fmean, zip(*rows, strict=True))
            made.append(Offer(name, worst, lost, seconds, len(rows)))
    return sorted(made, key=lambda each: (each.worst_asr, each.defense))


def _seconds(entry: Entry) -> float:
    spent = [each.seconds.get("aggregate", 0.0) for each in entry.run.rounds]
    return fmean(spent) if spent else 0.0


def front(found: Sequence[Offer], kind: Cost) -> list[Offer]:
    """Return those that no other is as good as in both and better than in one."""

    def beaten(each: Offer) -> bool:
        return any(
            other.worst_asr <= each.worst_asr
            and other.cost(kind) <= each.cost(kind)
            and (other.worst_asr, other.cost(kind)) != (each.worst_asr, each.cost(kind))
            for other in found
        )

    return [each for each in found if not beaten(each)]


def draw_pareto(found: Sequence[Offer], kind: Cost) -> Figure:
    """Draw the defenses by cost and worst ASR; those on the front are filled, and named first."""
    best = front(found, kind)
    log = _wide(found, kind)
    groups = (best, [each for each in found if each not in best])
    points = [
        (_along(each.cost(kind), log=log), 100 * each.worst_asr) for g in groups for each in g
    ]
    across, up = _ends([x for x, _ in points]), (-6.0, max(y for _, y in points) + 10)
    every = [each.defense for group in groups for each in group]
    names = shorten_all(every, 20)
    short = dict(zip(every, names, strict=True))
    sides = iter(places(points, names, across, up))
    traces: list[Object] = []
    for group, fill, ink in zip(groups, ("--ink", "--surface"), ("--ink", "--muted"), strict=True):
        where = [next(sides) for _ in group]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": [round(each.cost(kind), 5) for each in group],
                "y": [round(100 * each.worst_asr, 3) for each in group],
                "text": [
                    plain(short[each.defense]) if side else ""
                    for each, side in zip(group, where, strict=True)
                ],
                "textposition": [side or PLACES[0] for side in where],
                "textfont": {"size": 11, "color": ink},
                "marker": {"size": 9, "color": fill, "line": {"color": "--ink", "width": 1.5}},
                "customdata": [plain(each.defense) for each in group],
                "hovertemplate": "%{customdata}: %{x:.3g}, %{y:.1f} %<extra></extra>",
                "cliponaxis": False,
                "showlegend": False,
            }
        )
    layout: Object = {
        "hovermode": "closest",
        "xaxis": {
            "title": {"text": TITLES[kind]},
            "range": list(across),
            **({"type": "log", "dtick": "D2"} if log else {}),
        },
        "yaxis": {"title": {"text": "mean worst ASR (%)"}, "range": list(up)},
        "margin": {"l": 56, "r": 24, "t": 18, "b": 46},
    }
    said = "; ".join(
        f"{each.defense}: worst ASR {percent(each.worst_asr)}, {each.cost(kind):.3g}"
        for each in best
    )
    return Figure(traces, layout, 380, f"Worst ASR against {TITLES[kind]}. On the front: {said}.")


def _along(cost: float, *, log: bool) -> float:
    """Return the place of a cost on the axis, in the units of its range."""
    return math.log10(cost) if log else cost


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of an axis, with room for half a name at both ends."""
    low, high = min(values), max(values)
    room = 0.18 * (high - low) or 1.0
    return low - room, high + room


def _wide(found: Sequence[Offer], kind: Cost) -> bool:
    """Whether the costs are of different orders, so that only a logarithm shows them."""
    costs = [each.cost(kind) for each in found]
    return kind == "seconds" and min(costs) > 0 and max(costs) > 20 * min(costs)
