"""Heat maps as SVG, written by hand: the same numbers give the same bytes, and read in grey."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

LIGHT, DARK = (255, 255, 255), (20, 48, 92)
"""Colours of 0 and of 1: lightness alone tells them apart, too."""

WIDTH, HEIGHT, FONT = 58, 26, 12
_FAMILY = "Helvetica, Arial, sans-serif"


@dataclass(frozen=True)
class Square:
    """One cell: its share, or why it has none."""

    value: float | None = None
    state: Literal["run", "missing", "void", "not planned"] = "run"


def heat_map(
    title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Square]]]
) -> str:
    """Draw a map of shares, with each written into its square in percent.

    Parameters
    ----------
    title
        What the shares are.
    columns
        Their names; one that has a line break takes two lines.
    rows
        The name and the squares of each.
    """
    left = 16 + 7 * max(len(name) for name, _ in rows)
    lines = max(name.count("\n") for name in columns) + 1
    top = 34 + 15 * lines
    width, height = left + WIDTH * len(columns) + 12, top + HEIGHT * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FAMILY}" font-size="{FONT}">',
        f"<title>{escape(title)}</title>",
        '<defs><pattern id="void" width="6" height="6" patternUnits="userSpaceOnUse">'
        '<path d="M0 6L6 0" stroke="#999" stroke-width="1"/></pattern></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-weight="bold">{escape(title)}</text>',
    ]
    for place, name in enumerate(columns):
        x = left + WIDTH * place + WIDTH / 2
        for number, text in enumerate(name.split("\n")):
            parts.append(_text(x, 44 + 15 * number, text, "#222"))
    for down, (name, squares) in enumerate(rows):
        y = top + HEIGHT * down
        parts.append(
            f'<text x="{left - 8}" y="{y + 17}" text-anchor="end" fill="#222">{escape(name)}</text>'
        )
        parts += [
            _square(left + WIDTH * across, y, square) for across, square in enumerate(squares)
        ]
    parts.append(
        f'<text x="12" y="{height - 12}" font-size="11" fill="#555">hatched: the attack does not '
        "work undefended; dashed: not run yet</text>"
    )
    return "\n".join([*parts, "</svg>", ""])


def _square(x: int, y: int, square: Square) -> str:
    box = f'x="{x + 1}" y="{y + 1}" width="{WIDTH - 2}" height="{HEIGHT - 2}"'
    if square.state == "not planned":
        return ""
    if square.state == "void":
        return f'<rect {box} fill="url(#void)" stroke="#999"/>'
    if square.state == "missing" or square.value is None:
        return f'<rect {box} fill="none" stroke="#bbb" stroke-dasharray="3 3"/>'
    share = min(max(square.value, 0.0), 1.0)
    red, green, blue = (
        round(light + (dark - light) * share) for light, dark in zip(LIGHT, DARK, strict=True)
    )
    ink = "#fff" if share > 0.5 else "#222"
    text = _text(x + WIDTH / 2, y + 17, f"{100 * square.value:.0f}", ink)
    return f'<rect {box} fill="rgb({red},{green},{blue})" stroke="#ccc"/>{text}'


def _text(x: float, y: float, text: str, ink: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="middle" fill="{ink}">{escape(text)}</text>'
