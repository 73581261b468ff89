"""Results in a notebook: a small table and the curves of a run, as HTML without a script."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WIDTH, _HEIGHT = 460, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 60, 8, 22
_CURVES = (("mta", "MTA", "#0072b2", ""), ("asr", "ASR", "#d55e00", "5 3"))
"""Key, title, colour (of Okabe and Ito) and dashes, by which they differ in grey, too."""


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table; the first column is text, the others are numbers."""
    sides = ["left", *["right"] * (len(headings) - 1)]
    head = "".join(_cell("th", *pair) for pair in zip(headings, sides, strict=True))
    body = "".join(
        f"<tr>{''.join(_cell('td', *pair) for pair in zip(row, sides, strict=True))}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(tag: str, text: str, side: str) -> str:
    return f'<{tag} style="text-align:{side}">{escape(text)}</{tag}>'


def curves(lines: Sequence[Mapping[str, Any]]) -> str:
    """Draw MTA and ASR over the rounds; "" where no round was evaluated.

    Parameters
    ----------
    lines
        Of `rounds.jsonl`.
    """
    found = {
        key: [(line["round"], line[key]) for line in lines if _known(line.get(key))]
        for key, *_ in _CURVES
    }
    rounds = [at for points in found.values() for at, _ in points]
    if not rounds:
        return ""
    first, last = min(rounds), max(rounds)
    parts = [_line(0.0), _line(0.5), _line(1.0)]
    parts += [
        _text(_x(at, first, last), _HEIGHT - 6, str(at), "middle")
        for at in dict.fromkeys((first, last))
    ]
    labels: list[float] = []
    for key, title, colour, dashes in _CURVES:
        if not (points := found[key]):
            continue
        path = " ".join(f"{_x(at, first, last):.1f},{_y(value):.1f}" for at, value in points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2" '
            f'stroke-dasharray="{dashes}"/>'
        )
        height = _y(points[-1][1]) + 4
        if labels and abs(height - labels[0]) < 13:  # the two do not lie on each other
            height = labels[0] + (13 if height >= labels[0] else -13)
        labels.append(height)
        parts.append(
            _text(_WIDTH - _RIGHT + 6, height, f"{title} {points[-1][1]:.0%}", "start", colour)
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}" role="img" '
        f'aria-label="MTA and ASR over the rounds" font-family="sans-serif" font-size="11">'
        f"{''.join(parts)}</svg>"
    )


def _known(value: object) -> bool:
    return isinstance(value, int | float) and value == value  # not NaN


def _x(at: float, first: float, last: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (
        (at - first) / (last - first) if last > first else 0.5
    )


def _y(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _line(share: float) -> str:
    y = _y(share)
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
        f'stroke="currentColor" stroke-opacity="0.2"/>'
        + _text(_LEFT - 6, y + 4, f"{share:.0%}", "end")
    )


def _text(x: float, y: float, text: str, anchor: str, colour: str = "currentColor") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'
