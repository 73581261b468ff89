"""One row for each client, one column for each round: what the defense said of every update."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from entity.report.entries import Entry
from entity.report.plotly_figure import Figure, Object, plain, whole_ticks
from entity.report.runs import Round, RunRecord

ACCEPTED, REFUSED, CAUGHT, MISSED = range(4)
"""Honest accepted, honest refused, poisoned refused, poisoned accepted."""

COLOURS = ("--accepted", "--refused", "--caught", "--missed")
WORDS = ("honest, accepted", "honest, refused", "poisoned, refused", "poisoned, accepted")
MOST_ROWS = 400
LABEL_PX = 13


@dataclass(frozen=True)
class VerdictMap:
    """The figure and what its caption says."""

    figure: Figure
    columns: int
    counts: tuple[int, int, int, int]
    """Updates accepted, refused, caught and missed."""
    left_out: int
    """Clients without a row, in a federation of very many."""


def draw_verdicts(entry: Entry, *, detail: bool = True) -> VerdictMap | None:
    """Draw the map of one run, malicious clients first; None if no client was ever selected.

    Parameters
    ----------
    entry
        The run.
    detail
        Whether hovering tells reason, score and weight; a page of very many runs does without.
    """
    run = entry.run
    clients, left_out = _rows(run)
    if not clients:
        return None
    verdicts, notes, counts = _judge(run, clients, detail=detail)
    columns = [each.round for each in run.rounds]
    traces = [
        _cells(run, clients, verdicts, notes if detail else None),
        _signs(verdicts, columns, MISSED, "x-thin", "--on-missed"),
        _signs(verdicts, columns, REFUSED, "circle-open", "--on-refused"),
    ]
    accepted, refused, caught, missed = counts
    figure = Figure(
        traces=[trace for trace in traces if trace],
        layout=_layout(run, clients),
        height=52 + round(_row_pixels(len(clients)) * len(clients)),
        alt=f"Map of verdicts by client and round for {entry.label}: poisoned updates {caught} "
        f"refused and {missed} accepted, honest updates {refused} refused and {accepted} accepted.",
        cells=(len(clients), columns[-1] - columns[0] + 1),
    )
    return VerdictMap(figure, len(columns), counts, left_out)


Verdicts = list[list[int | None]]
"""By row and round; None where the client was not selected, or nobody judged it."""


def _judge(
    run: RunRecord, clients: Sequence[str], *, detail: bool
) -> tuple[Verdicts, list[list[str]], tuple[int, int, int, int]]:
    """Return verdicts and notes of the clients that have a row, and the counts over all clients."""
    row_of = {client: row for row, client in enumerate(clients)}
    verdicts: Verdicts = [[None] * len(run.rounds) for _ in clients]
    notes = [[""] * len(run.rounds) for _ in clients]
    counts = [0, 0, 0, 0]
    for column, each in enumerate(run.rounds):
        for client in each.selected:
            verdict = _verdict(each, client)
            counts[verdict] += 1
            row = row_of.get(client)
            if row is not None:
                verdicts[row][column] = verdict
                if detail:
                    notes[row][column] = f"<br>{WORDS[verdict]}{_note(each, client)}"
    accepted, refused, caught, missed = counts
    return verdicts, notes, (accepted, refused, caught, missed)


def _cells(
    run: RunRecord, clients: Sequence[str], verdicts: Verdicts, notes: list[list[str]] | None
) -> Object:
    columns = [each.round for each in run.rounds]
    return {
        "type": "heatmap",
        "x": columns,
        "y": list(range(len(clients))),
        "z": verdicts,
        "customdata": notes,
        "zmin": -0.5,
        "zmax": 3.5,
        "colorscale": [
            [edge / 4, colour] for step, colour in enumerate(COLOURS) for edge in (step, step + 1)
        ],
        "showscale": False,
        "xgap": 1,
        "ygap": 1 if _row_pixels(len(clients)) > 4 else 0,
        "hoverongaps": False,
        "text": [[_who(client, run)] * len(columns) for client in clients],
        "hovertemplate": "<b>%{text}</b>, round %{x}"
        + ("" if notes is None else "%{customdata}")
        + "<extra></extra>",
    }


def _layout(run: RunRecord, clients: Sequence[str]) -> Object:
    malicious = sum(client in run.malicious for client in clients)
    ticks = range(0, len(clients), max(1, math.ceil(LABEL_PX / _row_pixels(len(clients)))))
    return {
        "xaxis": {
            "title": {"text": "round"},
            "showgrid": False,
            **whole_ticks(run.rounds[0].round, run.rounds[-1].round),
            "range": [run.rounds[0].round - 0.5, run.rounds[-1].round + 0.5],
        },
        "yaxis": {
            "range": [len(clients) - 0.5, -0.5],
            "showgrid": False,
            "tickvals": list(ticks),
            "ticktext": [_label(clients[row], run) for row in ticks],
            "ticks": "",
            "ticklabelstandoff": 9,
            "showline": False,
        },
        "shapes": _divider(malicious),
        "margin": {"l": 60, "r": 14, "t": 6, "b": 46},
    }


def _verdict(each: Round, client: str) -> int:
    if client in each.malicious:
        return CAUGHT if client in each.refused else MISSED
    return REFUSED if client in each.refused else ACCEPTED


def _note(each: Round, client: str) -> str:
    """Say why, in the lines below the verdict."""
    reason, score, weight = (
        table.get(client) for table in (each.reasons, each.scores, each.weights)
    )
    numbers = [
        f"{name} {value:.3g}"
        for name, value in (("score", score), ("weight", weight))
        if isinstance(value, float)
    ]
    lines = [plain(str(reason))] if reason else []
    lines += [", ".join(numbers)] if numbers else []
    return "".join(f"<br>{line}" for line in lines)


def _rows(run: RunRecord) -> tuple[list[str], int]:
    """Order the clients that were ever selected; of too many keep those that were refused most."""
    refusals: dict[str, int] = {}
    for each in run.rounds:
        for client in each.selected:
            refusals[client] = refusals.get(client, 0) + (client in each.refused)
    ranked = sorted(refusals, key=lambda one: (one not in run.malicious, -refusals[one]))
    kept = sorted(ranked[:MOST_ROWS], key=lambda one: (one not in run.malicious, _natural(one)))
    return kept, len(refusals) - len(kept)


def _natural(client: str) -> tuple[int, int, str]:
    return (0, int(client), "") if client.isdecimal() else (1, 0, client)


def _who(client: str, run: RunRecord) -> str:
    kind = "malicious" if client in run.malicious else "benign"
    return plain(f"client {client} ({kind})")


def _label(client: str, run: RunRecord) -> str:
    short = client if len(client) <= 6 else f"…{client[-5:]}"
    return plain(f"◆ {short}" if client in run.malicious else short)


def _row_pixels(rows: int) -> float:
    """Rows get thinner as clients get more, so that a map stays within a screen."""
    if rows <= 12:
        return 22
    return 15 if rows <= 40 else max(3, min(12, 600 / rows))


def _divider(malicious: int) -> list[Object]:
    """Mark the malicious rows by a bar at their left."""
    if not malicious > 0:
        return []
    bar: Object = {
        "type": "rect",
        "xref": "paper",
        "yref": "y",
        "x0": -6,
        "x1": -2,
        "xsizemode": "pixel",
        "xanchor": 0,
        "y0": -0.45,
        "y1": malicious - 0.55,
        "fillcolor": "--ink",
        "line": {"width": 0},
    }
    return [bar]


def _signs(verdicts: Verdicts, columns: list[int], which: int, symbol: str, colour: str) -> Object:
    """Draw a sign into all cells of one verdict, so that colour is not needed to tell them."""
    places = [
        (columns[column], row)
        for row, line in enumerate(verdicts)
        for column, verdict in enumerate(line)
        if verdict == which
    ]
    if not places:
        return {}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [x for x, _ in places],
        "y": [y for _, y in places],
        "marker": {"symbol": symbol, "color": colour, "line": {"color": colour, "width": 1.6}},
        "hoverinfo": "skip",
    }
