"""Worst ASR against what a defense costs, as SVG by hand: the same numbers give the same bytes."""

import math
from collections.abc import Mapping, Sequence
from html import escape

from entity.report.pareto import TITLES, Cost, Offer, front
from entity.report.point_names import places

TITLE = "Worst ASR against MTA lost and against seconds a round"
WIDTH, HEIGHT, LEFT, TOP, GAP, FONT = 640, 420, 60, 50, 70, 11
_FAMILY = "Helvetica, Arial, sans-serif"
_ANCHORS = {"center": "middle", "right": "start", "left": "end"}


def cost_plots(offers: Mapping[str, Sequence[Offer]]) -> str:
    """Draw a plot for each cost and data set, one below the other.

    Parameters
    ----------
    offers
        What defenses cost and bring, by data set; empty draws that there is nothing to compare.
    """
    drawn = [(data, kind) for data in offers for kind in TITLES]
    width = LEFT + WIDTH + 20
    height = TOP + max(1, len(drawn)) * (HEIGHT + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FAMILY}" font-size="{FONT}">',
        f"<title>{escape(TITLE)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-size="12" font-weight="bold" fill="#222">{escape(TITLE)}</text>',
    ]
    if not drawn:
        parts.append(f'<text x="12" y="{TOP}" fill="#555">nothing to compare yet</text>')
    for place, (data, kind) in enumerate(drawn):
        parts += _plot(data, kind, offers[data], TOP + place * (HEIGHT + GAP))
    return "\n".join([*parts, "</svg>", ""])


def _plot(data: str, kind: Cost, found: Sequence[Offer], top: int) -> list[str]:
    costs = [each.cost(kind) for each in found]
    log = kind == "seconds" and min(costs) > 0
    along = [math.log10(each) if log else each for each in costs]
    room = 0.08 * (max(along) - min(along)) or 1.0
    across, up = (min(along) - room, max(along) + room), (-6.0, 106.0)

    def x_of(value: float) -> float:
        return round(LEFT + (value - across[0]) / (across[1] - across[0]) * WIDTH, 1)

    def y_of(value: float) -> float:
        return round(top + HEIGHT - (value - up[0]) / (up[1] - up[0]) * HEIGHT, 1)

    parts = [f'<text x="{LEFT}" y="{top - 8}" font-weight="bold" fill="#222">{escape(data)}</text>']
    bottom = top + HEIGHT
    for share in range(0, 101, 20):
        y = y_of(share)
        parts.append(f'<line x1="{LEFT}" y1="{y}" x2="{LEFT + WIDTH}" y2="{y}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 8, y + 4, str(share), "end"))
    for tick in _ticks(across, log=log):
        x = x_of(math.log10(tick) if log else tick)
        parts.append(f'<line x1="{x}" y1="{top}" x2="{x}" y2="{bottom}" stroke="#eee"/>')
        parts.append(_text(x, bottom + 16, f"{tick:g}", "middle"))
    title = f"{TITLES[kind]}; upwards mean worst ASR (%)"
    parts.append(_text(LEFT + WIDTH / 2, bottom + 34, title, "middle"))
    best = front(found, kind)
    order = sorted(range(len(found)), key=lambda each: found[each] not in best)
    points = [(along[each], 100 * found[each].worst_asr) for each in order]
    names = [found[each].defense for each in order]
    sides = places(points, names, across, up, (WIDTH, HEIGHT))
    for (cost, share), each, side in zip(points, order, sides, strict=True):
        on_it = found[each] in best
        parts += _dot(x_of(cost), y_of(share), found[each].defense, side, filled=on_it)
    return parts


def _ticks(across: tuple[float, float], *, log: bool) -> list[float]:
    """Return round numbers between the ends of an axis; of a logarithm's the powers of ten."""
    if log:
        return [10.0**power for power in range(math.ceil(across[0]), math.floor(across[1]) + 1)]
    step = 10.0 ** math.floor(math.log10(across[1] - across[0]))
    return [
        round(place * step, 9)
        for place in range(math.ceil(across[0] / step), math.floor(across[1] / step) + 1)
    ]


def _dot(x: float, y: float, name: str, side: str, *, filled: bool) -> list[str]:
    fill = "#14305c" if filled else "#fff"
    dot = (
        f'<circle cx="{x}" cy="{y}" r="4.5" fill="{fill}" stroke="#14305c" stroke-width="1.5">'
        f"<title>{escape(name)}</title></circle>"
    )
    if not side:
        return [dot]
    upright, along = side.split()
    down = {"top": -9, "middle": 4, "bottom": 16}[upright]
    aside = {"center": 0, "right": 8, "left": -8}[along]
    return [dot, _text(x + aside, y + down, name, _ANCHORS[along])]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
