"""The tree in which a defense joined the clients of a round, malicious leaves marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from scipy.cluster.hierarchy import dendrogram

from entity.report.artifacts import Tree
from entity.report.entries import Entry
from entity.report.plotly_figure import Figure, Object, plain
from entity.results.formatting import counted

MOST_LABELS = 40


@dataclass(frozen=True)
class TreeFigure:
    """The figure and what its caption says."""

    figure: Figure
    round: int
    clients: int
    malicious: int


MOST_FRAMES = 240
"""Trees of one page, all runs together."""


def draw_trees(entries: Sequence[Entry]) -> list[tuple[Entry, list[TreeFigure]]]:
    """Draw the trees of all runs that have some, first round first; the last of each at least."""
    having = [entry for entry in entries if entry.run.trees]
    most = max(1, MOST_FRAMES // max(1, len(having)))
    drawn: list[tuple[Entry, list[TreeFigure]]] = []
    for entry in having:
        step = -(-len(entry.run.trees) // most)
        chosen = entry.run.trees[::-1][::step][::-1]
        drawn.append((entry, [draw_tree(entry, tree) for tree in chosen]))
    return drawn


def draw_tree(entry: Entry, tree: Tree) -> TreeFigure:
    """Draw one tree of a run."""
    poisoned = next(each.malicious for each in entry.run.rounds if each.round == tree.round)
    purity = _purity(tree, poisoned)
    drawn = dendrogram(
        tree.linkage, no_plot=True, link_color_func=lambda node: "pure" if purity[node] else "mixed"
    )
    leaves = [tree.clients[leaf] for leaf in cast("list[int]", drawn["leaves"])]
    links = list(
        zip(
            cast("list[list[float]]", drawn["icoord"]),
            cast("list[list[float]]", drawn["dcoord"]),
            cast("list[str]", drawn["color_list"]),
            strict=True,
        )
    )
    traces = [
        _branches(links, "mixed", "--muted", 1.4),
        _branches(links, "pure", "--missed", 2.4),
        _leaves(leaves, poisoned, malicious=False),
        _leaves(leaves, poisoned, malicious=True),
    ]
    malicious = sum(one in poisoned for one in leaves)
    order = ", ".join(f"{one} (malicious)" if one in poisoned else one for one in leaves[:40])
    figure = Figure(
        traces=[trace for trace in traces if trace],
        layout=_layout(leaves, poisoned, top=float(tree.linkage[-1, 2]) or 1.0),
        height=300,
        note=f"{counted(len(leaves), 'client')}, {malicious} malicious.",
        alt=f"Dendrogram of the clients of round {tree.round}, {entry.label}; leaves: {order}.",
    )
    return TreeFigure(figure, tree.round, len(leaves), malicious)


def _layout(leaves: list[str], poisoned: frozenset[str], top: float) -> Object:
    """Return the axes; `top` is the distance at which the last two branches join."""
    labelled = len(leaves) <= MOST_LABELS
    return {
        "hovermode": "closest",
        "xaxis": {
            "range": [-0.7, len(leaves) - 0.3],
            "showgrid": False,
            "tickvals": list(range(len(leaves))) if labelled else [],
            "ticktext": [_label(one, one in poisoned) for one in leaves] if labelled else [],
            "tickangle": 0 if len(leaves) <= 12 else -90,
            "ticks": "",
            "linecolor": "rgba(0,0,0,0)",
        },
        "yaxis": {
            "title": {"text": "distance when joined"},
            "range": [-0.06 * top, 1.05 * top],
            "nticks": 5,
        },
        "margin": {"l": 56, "r": 10, "t": 8, "b": 30 if labelled else 14},
    }


def _purity(tree: Tree, poisoned: frozenset[str]) -> list[bool]:
    """For every node of the linkage, whether all of its leaves are malicious."""
    pure = [client in poisoned for client in tree.clients]
    for left, right in tree.linkage[:, :2].astype(int):
        pure.append(pure[left] and pure[right])
    return pure


def _branches(
    links: list[tuple[list[float], list[float], str]], kind: str, colour: str, width: float
) -> Object:
    xs: list[float | None] = []
    ys: list[float | None] = []
    for x, y, its in links:
        if its == kind:  # scipy puts leaf i at 10 i + 5
            xs += [*((one - 5) / 10 for one in x), None]
            ys += [*y, None]
    if not xs:
        return {}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": xs,
        "y": ys,
        "line": {"color": colour, "width": width, "simplify": False},
        "hoverinfo": "skip",
    }


def _leaves(leaves: list[str], poisoned: frozenset[str], *, malicious: bool) -> Object:
    places = [place for place, one in enumerate(leaves) if (one in poisoned) == malicious]
    if not places:
        return {}
    colour = "--missed" if malicious else "--muted"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": places,
        "y": [0] * len(places),
        "text": [plain(f"client {leaves[place]}") for place in places],
        "hovertemplate": "%{text}, " + ("malicious" if malicious else "benign") + "<extra></extra>",
        "marker": {
            "symbol": "diamond" if malicious else "circle",
            "size": 10 if malicious else 7,
            "color": colour if malicious else "--surface",
            "line": {"color": colour, "width": 1.5},
        },
        "cliponaxis": False,
    }


def _label(client: str, malicious: bool) -> str:
    short = client if len(client) <= 6 else f"…{client[-5:]}"
    return plain(f"◆ {short}" if malicious else short)
