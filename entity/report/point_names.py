"""Where the names of points stand in a chart, so that they cover neither points nor each other."""

from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 250.0, 210.0
"""The least plot, in pixels, that a page on a phone or on paper has for them."""
LETTER, LINE, MARK = 6.3, 13.0, 7.0
PLACES = (
    "top center",
    "middle right",
    "middle left",
    "bottom center",
    "top right",
    "top left",
    "bottom right",
    "bottom left",
)
"""The sides of a point, in plotly's words, the best first."""

Box = tuple[float, float, float, float]
"""Left, bottom, right and top."""


def places(
    at: Sequence[tuple[float, float]],
    names: Sequence[str],
    across: tuple[float, float],
    up: tuple[float, float],
    size: tuple[float, float] = (WIDTH, HEIGHT),
) -> list[str]:
    """Return where each name goes, "" for one that finds no room.

    Parameters
    ----------
    at
        The points (x, y), the most important first, in the units of linear axes.
    names
        What they are called, as long as they are written.
    across, up
        The ends of the axes.
    size
        Of the plot, in pixels.

    Examples
    --------
    >>> places([(0.5, 0.5), (0.52, 0.5)], ["a long name", "another"], (0, 1), (0, 1))
    ['top center', 'middle right']
    """
    points = [
        (
            (x - across[0]) / (across[1] - across[0]) * size[0],
            (y - up[0]) / (up[1] - up[0]) * size[1],
        )
        for x, y in at
    ]
    marks = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in points]
    taken: list[Box] = []
    found: list[str] = []
    for mine, (point, name) in enumerate(zip(points, names, strict=True)):
        others = [*taken, *marks[:mine], *marks[mine + 1 :]]
        for place, box in _boxes(point, LETTER * len(name)):
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(_meet(box, other) for other in others):
                taken.append(box)
                found.append(place)
                break
        else:
            found.append("")
    return found


def _boxes(point: tuple[float, float], width: float) -> Iterator[tuple[str, Box]]:
    for place in PLACES:
        upright, side = place.split()
        middle = {"top": MARK + LINE / 2, "middle": 0.0, "bottom": -MARK - LINE / 2}[upright]
        start = {"center": -width / 2, "right": MARK, "left": -MARK - width}[side]
        x, y = point[0] + start, point[1] + middle
        yield place, (x, y - LINE / 2, x + width, y + LINE / 2)


def _meet(one: Box, other: Box) -> bool:
    apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    return not apart
