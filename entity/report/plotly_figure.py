"""A figure of the page: a plotly figure as JSON, whose colours are CSS variables.

`page.js` replaces every string `--name` by the value that the style sheet gives it, and
`--name/0.2` by the same at an opacity, so that one figure serves the light and the dark page, and
adds what all axes share.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass

Object = dict[str, object]


@dataclass(frozen=True)
class Figure:
    """A plotly figure, its height, and a sentence for those who do not see it."""

    traces: Sequence[Object]
    layout: Object
    height: int
    alt: str
    cells: tuple[int, int] | None = None
    """(rows, columns) where markers have to fit the cells of a map."""
    note: str = ""
    """Its part of the caption, where another figure may take its place."""

    def spec(self) -> Object:
        """Return what `page.js` draws."""
        drawn: Object = {"data": list(self.traces), "layout": self.layout, "cells": self.cells}
        return drawn | ({"note": self.note, "alt": self.alt} if self.note else {})


def plain(text: str) -> str:
    """Escape text for plotly, which reads a little HTML in all labels.

    Examples
    --------
    >>> plain("<b>drop</b>")
    '&lt;b&gt;drop&lt;/b&gt;'
    """
    return html.escape(text, quote=False)


def shorten(text: str, limit: int = 48) -> str:
    """Cut a long label.

    Examples
    --------
    >>> shorten("undefended", 6)
    'undef…'
    """
    return text if len(text) <= limit else text[: limit - 1] + "…"


def shorten_all(texts: Sequence[str], limit: int = 48) -> list[str]:
    """Cut long labels of one figure, at the end or in the middle, and never to the same text.

    Examples
    --------
    >>> shorten_all(["clipping, factor 1", "clipping, factor 2", "median"], 11)
    ['clipp…tor 1', 'clipp…tor 2', 'median']
    """
    start = limit // 2
    middles = [
        text if len(text) <= limit else f"{text[:start]}…{text[1 + start - limit :]}"
        for text in texts
    ]
    ends = [shorten(text, limit) for text in texts]
    for short in (ends, middles):
        if len(set(short)) == len(set(texts)):
            return short
    return list(texts)


def whole_ticks(first: float, last: float) -> Object:
    """Return ticks of an axis of rounds: whole numbers, about twelve of them at most.

    Examples
    --------
    >>> whole_ticks(1, 3)
    {'tickformat': 'd', 'dtick': 1}
    """
    how_often: Object = {"dtick": 1} if last - first <= 12 else {"nticks": 12}
    return {"tickformat": "d"} | how_often


def faded(colour: str, opacity: float) -> str:
    """Return a colour of the style sheet at an opacity.

    Examples
    --------
    >>> faded("--run-1", 0.2)
    '--run-1/0.2'
    """
    return f"{colour}/{opacity:g}"
