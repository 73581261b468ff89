"""Attack success over data poisoning rate and share of malicious clients, a map a defense."""

from collections.abc import Sequence
from dataclasses import dataclass

from entity.record.json_fields import at
from entity.report.axes import Axis, differing
from entity.report.entries import Entry
from entity.report.plotly_figure import Figure, Object, plain
from entity.report.runs import RunRecord
from entity.report.seed_bands import by_seed
from entity.results.formatting import percent
from entity.results.tables import Spread
from entity.results.titles import titled

DPR = "client.attack.DPR"
MALICIOUS = "federation.number_of_malicious_clients"


@dataclass(frozen=True)
class Heat:
    """Mean ASR (rows by share of malicious clients, columns by DPR) of one defense and attack."""

    label: str
    dprs: tuple[float, ...]
    shares: tuple[float, ...]
    asr: tuple[tuple[Spread | None, ...], ...]
    mta: tuple[tuple[Spread | None, ...], ...]


def heats(entries: Sequence[Entry]) -> list[Heat]:
    """Return the maps of finished runs; none unless both quantities vary over runs else alike."""
    entries = [entry for entry in entries if entry.run.complete]
    runs = [entry.run for entry in entries]
    others = [axis for axis in differing(runs) if axis.path not in (DPR, MALICIOUS)]
    panels: dict[str, list[Entry]] = {}
    for entry in entries:
        if _coordinates(entry.run):
            panels.setdefault(_label(others, entry.run), []).append(entry)
    return [
        heat
        for label, members in panels.items()
        if (heat := _heat(titled(label, members[0].names), members))
    ]


def _label(axes: Sequence[Axis], run: RunRecord) -> str:
    return ", ".join(axis.label(axis.written(run)) for axis in axes) or run.defense


def _coordinates(run: RunRecord) -> tuple[float, float] | None:
    """Return (DPR, share of malicious clients)."""
    rate, bad, size = (at(run.config, path) for path in (DPR, MALICIOUS, "federation.size"))
    numbers = [float(one) for one in (rate, bad, size) if isinstance(one, int | float)]
    return (numbers[0], numbers[1] / numbers[2]) if len(numbers) == 3 and numbers[2] else None


def _heat(label: str, entries: Sequence[Entry]) -> Heat | None:
    cells: dict[tuple[float, float], list[Entry]] = {}
    for entry in entries:
        place = _coordinates(entry.run)
        if place and entry.outcome.asr is not None:
            cells.setdefault(place, []).append(entry)
    dprs, shares = (tuple(sorted({place[side] for place in cells})) for side in (0, 1))
    if len(dprs) < 2 or len(shares) < 2:
        return None
    asr, mta = (
        tuple(
            tuple(
                Spread.of(list(by_seed(cells.get((dpr, share), []), metric).values()))
                for dpr in dprs
            )
            for share in shares
        )
        for metric in ("asr", "mta")
    )
    return Heat(label, dprs, shares, asr, mta)


def draw_heat(heat: Heat) -> Figure:
    """Draw a map whose cells show their numbers, so that colour is not needed."""
    x = [f"{100 * dpr:g} %" for dpr in heat.dprs]
    y = [f"{100 * share:g} %" for share in heat.shares]
    cells: Object = {
        "type": "heatmap",
        "x": list(range(len(x))),
        "y": list(range(len(y))),
        "z": [[None if one is None else round(one.mean, 4) for one in row] for row in heat.asr],
        "text": [
            ["" if one is None else f"{100 * one.mean:.0f}" for one in row] for row in heat.asr
        ],
        "customdata": [
            [_note(asr, mta) for asr, mta in zip(*rows, strict=True)]
            for rows in zip(heat.asr, heat.mta, strict=True)
        ],
        "texttemplate": "%{text}",
        "textfont": {"color": "--ink", "size": 14},
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[0, "--heat-low"], [1, "--heat-high"]],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
        "hoverongaps": False,
        "hovertemplate": "%{customdata}<extra></extra>",
    }
    axis: Object = {"showgrid": False, "ticks": "", "showline": False, "fixedrange": True}
    layout: Object = {
        "hovermode": "closest",
        "xaxis": axis
        | {
            "title": {"text": "poisoned data (DPR)"},
            "tickvals": list(range(len(x))),
            "ticktext": x,
        },
        "yaxis": axis
        | {
            "title": {"text": "malicious clients (MCR)"},
            "tickvals": list(range(len(y))),
            "ticktext": y,
        },
        "margin": {"l": 66, "r": 8, "t": 4, "b": 46},
    }
    said = "; ".join(
        f"DPR {column}, MCR {row}: {percent(cell.mean) if cell else 'none'}"
        for row, line in zip(y, heat.asr, strict=True)
        for column, cell in zip(x, line, strict=True)
    )
    return Figure([cells], layout, 62 + 46 * len(y), f"Mean ASR of {heat.label}. {said}.")


def _note(asr: Spread | None, mta: Spread | None) -> str:
    lines = [
        f"{name} {percent(one.mean)}" + (f" ± {100 * one.sd:.1f}" if one.sd is not None else "")
        for name, one in (("ASR", asr), ("MTA", mta))
        if one
    ]
    return plain("; ".join(lines)).replace("; ", "<br>") + (f"<br>n = {asr.n}" if asr else "")
