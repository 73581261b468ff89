"""Mean ranks with critical differences as SVG, by hand: the same numbers give the same bytes."""

from html import escape

from entity.report.ranks import Ranking

ROW, LEFT, WIDTH, TOP, FONT = 20, 170, 620, 34, 12
_FAMILY = "Helvetica, Arial, sans-serif"


def rank_plot(title: str, ranking: Ranking | None, names: dict[str, str]) -> str:
    """Draw the best on top; where two bars do not meet, the two differ significantly.

    Parameters
    ----------
    title
        What the ranks are of.
    ranking
        The ranks; None draws that there is nothing to rank yet.
    names
        Titles of the methods.
    """
    methods = ranking.methods if ranking else ()
    width, height = LEFT + WIDTH + 30, TOP + ROW * max(1, len(methods)) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="{_FAMILY}" font-size="{FONT}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<text x="12" y="20" font-weight="bold" fill="#222">{escape(title)}</text>',
    ]
    if ranking is None:
        parts.append(f'<text x="12" y="{TOP + 16}" fill="#555">too few runs to rank yet</text>')
        return "\n".join([*parts, "</svg>", ""])
    last, half = len(methods), ranking.critical / 2

    def across(rank: float) -> float:
        inside = min(max(rank, 0.5), last + 0.5)
        return round(LEFT + (inside - 0.5) / last * WIDTH, 1)

    bottom = TOP + ROW * len(methods) + 6
    for tick in range(1, last + 1, max(1, last // 8)):
        x = across(tick)
        parts.append(f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" stroke="#ddd"/>')
        parts.append(_text(x, bottom + 16, str(tick), "middle"))
    for row, (name, mean) in enumerate(zip(methods, ranking.ranks, strict=True)):
        y = TOP + ROW * row + 12
        fill = "#14305c" if name in ranking.as_good else "#fff"
        parts.append(_text(LEFT - 10, y + 4, names.get(name, name), "end"))
        parts.append(
            f'<line x1="{across(mean - half)}" y1="{y}" x2="{across(mean + half)}" y2="{y}" '
            'stroke="#555" stroke-width="1.5"/>'
        )
        parts.append(
            f'<circle cx="{across(mean)}" cy="{y}" r="4.5" fill="{fill}" stroke="#14305c" '
            'stroke-width="1.5"/>'
        )
    said = (
        f"mean rank over {ranking.blocks} blocks; bars: critical difference {ranking.critical:.2f}"
    )
    if ranking.differ and not ranking.tells:
        said += "; too few blocks to tell any two apart"
    parts.append(_text(LEFT + WIDTH / 2, bottom + 34, said, "middle"))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="#222">{escape(text)}</text>'
