"""Main-task accuracy and attack success rate over the rounds, all runs in two panels.

Runs that differ by their seed alone are one curve, their mean, in a band of one sample standard
deviation to each side.
"""

import math
from collections.abc import Sequence

from entity.report.entries import Entry, Group
from entity.report.overlaps import MOST, signs, stretches
from entity.report.plotly_figure import Figure, Object, faded, plain, whole_ticks
from entity.report.seed_bands import Point, bands_of, by_group

UNIFIED = 6
"""Up to so many groups one hover box compares all of them; beyond, it shows the nearest."""

NEAR = 0.008
"""Part of the height of a panel within which lines hide one another."""

Band = list[Point]


def draw_curves(entries: Sequence[Entry]) -> Figure | None:
    """Draw the panels for which a run has values; None if there are none at all."""
    groups = by_group(entries)
    mta, asr = bands_of(groups, "mta"), bands_of(groups, "asr")
    panels = [
        (title, bands)
        for title, bands in (("Main-task accuracy (MTA)", mta), ("Attack success rate (ASR)", asr))
        if any(bands)
    ]
    if not panels:
        return None
    layers: tuple[list[Object], ...] = ([], [], [], [], [])
    layout: Object = {
        "hovermode": "x unified" if len(groups) <= UNIFIED else "closest",
        "hoversubplots": "axis",
        "xaxis": _round_axis(panels, spikes=len(groups) <= UNIFIED),
        "margin": {"l": 48, "r": 14, "t": 30, "b": 46},
    }
    annotations: list[Object] = []
    for number, (title, bands) in enumerate(panels, start=1):
        top = 1 - 0.535 * (number - 1)
        axis = _share_axis(bands, top, len(panels), from_zero=bands is asr)
        layout[f"yaxis{number}"] = axis
        annotations.append(_panel_title(title, top))
        place: Object = {"xaxis": "x", "yaxis": f"y{number}"}
        for group, band in zip(groups, bands, strict=True):
            drawn = _curve(group, band, "ASR" if bands is asr else "MTA")
            for layer, traces in zip((0, 1, 4), drawn, strict=True):
                layers[layer].extend(place | trace for trace in traces)
        named = [group[0].group for group in groups]
        layers[2].extend(place | trace for trace in draw_stripes(named, bands))
        layers[3].extend(place | trace for trace in draw_signs(named, bands))
    layout["annotations"] = annotations
    named = ", ".join(group[0].group.label for group in groups[:UNIFIED])
    return Figure(
        traces=[trace for layer in layers for trace in layer],
        layout=layout,
        height=560 if len(panels) == 2 else 330,
        alt=f"Line chart over rounds of {' and '.join(t for t, _ in panels)}; runs: {named}. "
        "The last values stand in the table of results.",
    )


def _round_axis(panels: Sequence[tuple[str, Sequence[Band]]], *, spikes: bool) -> Object:
    """Return the axis below the lowest panel, which all panels share."""
    rounds = [point.at for _, bands in panels for band in bands for point in band]
    return {
        "title": {"text": "round"},
        "anchor": f"y{len(panels)}",
        "range": [min(rounds) - 0.5, max(rounds) + 0.5],
        "hoverformat": "d",
        "unifiedhovertitle": {"text": "round %{x}"},
        **whole_ticks(min(rounds), max(rounds)),
        "showspikes": spikes,
        "spikemode": "across",
    }


def _share_axis(bands: Sequence[Band], top: float, panels: int, *, from_zero: bool) -> Object:
    """Return the axis of a panel whose upper edge is at `top` of the figure."""
    bottom = top - (0.465 if panels == 2 else 1)
    lowest = 0 if from_zero else min(point.low for band in bands for point in band)
    return {
        "domain": [max(bottom, 0), top],
        "range": [math.floor(10 * lowest) / 10 - 0.015, 1.02],
        "tickformat": ".0%",
        "nticks": 6,
    }


def _panel_title(title: str, top: float) -> Object:
    return {
        "text": f"<b>{title}</b>",
        "xref": "paper",
        "yref": "paper",
        "x": 0,
        "y": top,
        "xanchor": "left",
        "yanchor": "bottom",
        "yshift": 4,
        "showarrow": False,
    }


def _curve(
    entries: Sequence[Entry], band: Band, metric: str
) -> tuple[list[Object], list[Object], list[Object]]:
    """Return the band of a group, its line, and the diamonds on it."""
    if not band:
        return [], [], []
    group = entries[0].group
    distillations = (
        {each.round for entry in entries for each in entry.run.rounds if each.distilled}
        if metric == "ASR"
        else set[int]()
    )
    common: Object = {"type": "scatter", "name": plain(group.label), "meta": group.index}
    line: Object = common | {
        "mode": "lines" if len(band) > 2 else "lines+markers",
        "x": [point.at for point in band],
        "y": [round(point.mean, 5) for point in band],
        "line": {"color": group.colour, "dash": group.dash, "width": 2},
        "customdata": [
            spread(point) + (" · distilled" if point.at in distillations else "") for point in band
        ],
        "hovertemplate": f"%{{fullData.name}}: {metric} %{{y:.1%}}%{{customdata}}<extra></extra>",
    }
    shade = draw_band(group, band)
    shades = [common | shade] if shade else []
    marked = [(at, _height(band, at)) for at in sorted(distillations)]
    if not marked:
        return shades, [line], []
    marks: Object = common | {
        "mode": "markers",
        "x": [at for at, _ in marked],
        "y": [round(value, 5) for _, value in marked],
        "marker": {
            "symbol": "diamond",
            "size": 7,
            "color": "--surface",
            "line": {"color": group.colour, "width": 1.5},
        },
        "cliponaxis": False,
        "hoverinfo": "skip",
    }
    return shades, [line], [marks]


def draw_stripes(groups: Sequence[Group], bands: Sequence[Sequence[Point]]) -> list[Object]:
    """Draw stripes of all colours where lines lie on each other, by less than their width."""
    heights = [point.mean for band in bands for point in band]
    if not heights:
        return []
    near = NEAR * max(max(heights) - min(heights), 0.1)
    lines = [{point.at: point.mean for point in band} for band in bands]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "name": plain(groups[member].label),
            "meta": groups[member].index,
            "x": list(stretch.at),
            "y": [round(height, 5) for height in stretch.heights],
            "line": {
                "color": groups[member].colour,
                "dash": dash,
                "width": 2.5,
                "simplify": False,
            },
            "hoverinfo": "skip",
        }
        for stretch in stretches(lines, near)
        for member, dash in zip(stretch.members, stretch.dashes(), strict=True)
    ]


def draw_signs(groups: Sequence[Group], bands: Sequence[Sequence[Point]]) -> list[Object]:
    """Draw each group's sign at some points of its line, in turns with those of the others."""
    if not 1 < len(groups) <= MOST:
        return []
    drawn: list[Object] = []
    for place, (group, band) in enumerate(zip(groups, bands, strict=True)):
        chosen = [band[each] for each in signs(len(band), place, len(groups))]
        if chosen:
            drawn.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": plain(group.label),
                    "meta": group.index,
                    "x": [point.at for point in chosen],
                    "y": [round(point.mean, 5) for point in chosen],
                    "marker": {
                        "symbol": group.symbol,
                        "size": 8,
                        "color": group.colour,
                        "line": {"color": "--surface", "width": 1},
                    },
                    "cliponaxis": False,
                    "hoverinfo": "skip",
                }
            )
    return drawn


def draw_band(group: Group, band: Sequence[Point]) -> Object:
    """Shade mean ± sd where there is more than one seed; {} where there is none to shade."""
    edges = [point for point in band if point.sd is not None]
    if len(edges) < 2:
        return {}
    return {
        "mode": "lines",
        "x": [point.at for point in (*edges, *reversed(edges))],
        "y": [round(point.high, 5) for point in edges]
        + [round(point.low, 5) for point in reversed(edges)],
        "line": {"width": 0},
        "fill": "toself",
        "fillcolor": faded(group.colour, 0.18),
        "hoverinfo": "skip",
    }


def spread(point: Point) -> str:
    """Write the standard deviation, and of how many seeds, for hovering."""
    return "" if point.sd is None else f" ± {100 * point.sd:.1f}, n = {point.n}"


def _height(band: Band, at: int) -> float:
    """Height of the drawn line at a round that may not have been evaluated."""
    before = [point for point in band if point.at <= at] or band[:1]
    after = [point for point in band if point.at >= at] or band[-1:]
    (x0, y0), (x1, y1) = (before[-1].at, before[-1].mean), (after[0].at, after[0].mean)
    return y0 if x1 == x0 else y0 + (y1 - y0) * (at - x0) / (x1 - x0)
