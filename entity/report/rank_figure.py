"""Mean ranks of defenses with Nemenyi's critical difference, drawn as dots with bars."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

from entity.report.blocks import Block
from entity.report.paper_table import TITLES
from entity.report.plotly_figure import Figure, Object, plain, shorten_all
from entity.report.ranks import Ranking, rank
from entity.results.formatting import counted

Metric = Literal["worst_asr", "mta"]


@dataclass(frozen=True)
class Ranked:
    """The ranks of the defenses by one metric."""

    metric: Metric
    ranking: Ranking
    void: int
    """Blocks that do not count, as their attack does not work where nobody defends."""


def ranked(found: Sequence[Block]) -> list[Ranked]:
    """Rank the defenses by worst ASR, over the blocks whose attack works, and by MTA, over all."""
    attacked = [block for block in found if block.attacked]
    chosen: tuple[tuple[Metric, Sequence[Block]], ...] = (("worst_asr", attacked), ("mta", found))
    made: list[Ranked] = []
    for metric, counting in chosen:
        scores: dict[Hashable, dict[str, float]] = {
            place: {
                name: value if metric == "worst_asr" else -value
                for name, entry in block.runs.items()
                if (value := getattr(entry.outcome, metric)) is not None
            }
            for place, block in enumerate(counting)
        }
        ranking = rank(scores)
        if ranking is not None:
            made.append(Ranked(metric, ranking, len(found) - len(counting)))
    return made


def draw_ranks(found: Ranked) -> Figure:
    """Draw the best defense on top; where two bars do not meet, the two differ significantly."""
    ranking = found.ranking
    half = ranking.critical / 2
    first = ranking.as_good
    short = shorten_all(ranking.methods, 24)
    names = [plain(name) for name in short]
    dots: Object = {
        "type": "scatter",
        "mode": "markers",
        "x": [round(each, 3) for each in ranking.ranks],
        "y": list(range(len(names))),
        "error_x": {"type": "constant", "value": half, "color": "--muted", "thickness": 1.5},
        "marker": {
            "size": 9,
            "color": ["--ink" if name in first else "--surface" for name in ranking.methods],
            "line": {"color": "--ink", "width": 1.5},
        },
        "text": names,
        "hovertemplate": "%{text}: mean rank %{x:.2f}<extra></extra>",
        "showlegend": False,
    }
    layout: Object = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": f"mean rank by {TITLES[found.metric]}"}},
        "yaxis": {
            "tickvals": list(range(len(names))),
            "ticktext": names,
            "autorange": "reversed",
            "showgrid": True,
        },
        "margin": {"l": 24 + 7 * max(map(len, short)), "r": 12, "t": 8, "b": 46},
    }
    said = "; ".join(
        f"{name} {rank:.2f}" for name, rank in zip(ranking.methods, ranking.ranks, strict=True)
    )
    alt = (
        f"Mean ranks by {TITLES[found.metric]} over {counted(ranking.blocks, 'block')}: {said}. "
        f"Critical difference {ranking.critical:.2f}."
    )
    return Figure([dots], layout, 70 + 22 * len(names), alt)
