"""The attack success rate after the last poisoned round, and how long the backdoor lasts."""

from collections.abc import Sequence
from dataclasses import dataclass

from entity.metrics import lifespan
from entity.record.json_fields import at, mapping, number
from entity.report.curves import draw_band, draw_signs, draw_stripes, spread
from entity.report.entries import Entry, Group
from entity.report.plotly_figure import Figure, Object, plain, whole_ticks
from entity.report.runs import RunRecord
from entity.report.seed_bands import Curve, Point, by_group, curves_by_seed, over_seeds, series
from entity.results.formatting import NONE, percent
from entity.results.tables import Spread

HALF = 0.5


@dataclass(frozen=True)
class Durability:
    """ASR after the stop, by rounds since: 0 is the last poisoned round."""

    group: Group
    band: tuple[Point, ...]
    lifespan: Spread
    """Rounds for which the ASR stays at one half or above, over seeds; see `metrics.lifespan`."""
    outlives: bool
    """Whether in some run it was still there when the run ended: the lifespan is at least that."""


def last_poisoned(run: RunRecord) -> int | None:
    """Return the last round that is poisoned; None if the attack never ends, or never begins."""
    if run.setting("client.attack.participation_strategy") != "after_convergence":
        return None
    attack = mapping(at(run.config, "client.attack"))
    start, end = number(attack, "poisoning_start_round") or 1, number(attack, "poisoning_end_round")
    if end is None or end <= start:
        return None
    every = number(attack, "poisoning_every") or 1
    return int(start + (end - 1 - start) // every * every)


def after_stop(run: RunRecord) -> dict[int, float]:
    """Return ASR by rounds since the last poisoned one; empty if the run did not get there."""
    last = last_poisoned(run)
    if last is None:
        return {}
    found = {round - last: asr for round, asr in series(run, "asr").items()}
    return (
        {since: asr for since, asr in found.items() if since >= 0}
        if max(found, default=0) > 0
        else {}
    )


def durabilities(entries: Sequence[Entry]) -> list[Durability]:
    """Return the groups whose attack ended within the run."""
    found: list[Durability] = []
    for group in by_group(entries):
        curves = [curve for curve in curves_by_seed(group, after_stop) if curve]
        lives = [_lifespan(curve) for curve in curves]
        total = Spread.of([float(life) for life in lives])
        if total:
            outlives = any(life == max(curve) for life, curve in zip(lives, curves, strict=True))
            found.append(Durability(group[0].group, tuple(over_seeds(curves)), total, outlives))
    return found


def _lifespan(curve: Curve) -> int:
    return lifespan([curve.get(since, 0.0) for since in range(1, max(curve) + 1)], HALF)


def draw_durability(found: Sequence[Durability]) -> Figure | None:
    """Draw the curves; None for none."""
    if not found:
        return None
    half: Object = {
        "type": "scatter",
        "mode": "lines",
        "x": [0, max(point.at for each in found for point in each.band)],
        "y": [HALF, HALF],
        "line": {"color": "--muted", "width": 1, "dash": "dot"},
        "hoverinfo": "skip",
    }
    traces: list[Object] = [half]
    for each in found:
        common: Object = {
            "type": "scatter",
            "name": plain(each.group.label),
            "meta": each.group.index,
        }
        shade = draw_band(each.group, each.band)
        traces += [common | shade] if shade else []
        traces.append(
            common
            | {
                "mode": "lines" if len(each.band) > 2 else "lines+markers",
                "x": [point.at for point in each.band],
                "y": [round(point.mean, 5) for point in each.band],
                "customdata": [spread(point) for point in each.band],
                "line": {"color": each.group.colour, "dash": each.group.dash, "width": 2},
                "hovertemplate": "%{fullData.name}: ASR %{y:.1%}%{customdata}<extra></extra>",
            }
        )
    groups, bands = [each.group for each in found], [each.band for each in found]
    traces += draw_stripes(groups, bands) + draw_signs(groups, bands)
    layout: Object = {
        "hovermode": "x unified",
        "xaxis": {
            "title": {"text": "rounds since the last poisoned one"},
            **whole_ticks(
                min(point.at for band in bands for point in band),
                max(point.at for band in bands for point in band),
            ),
            "unifiedhovertitle": {"text": "%{x} rounds after"},
        },
        "yaxis": {"range": [-0.015, 1.02], "tickformat": ".0%", "nticks": 6},
        "margin": {"l": 48, "r": 14, "t": 12, "b": 46},
    }
    said = "; ".join(
        f"{each.group.label}: {row[1]}" for each, (_, row) in zip(found, table(found), strict=True)
    )
    return Figure(
        traces, layout, 330, f"Attack success after the attack stopped. Lifespan: {said}."
    )


def table(found: Sequence[Durability]) -> list[tuple[Group, list[str]]]:
    """Write ASR at the stop, lifespan in rounds, and ASR at the end, of each group."""
    rows: list[tuple[Group, list[str]]] = []
    for each in found:
        start = each.band[0]
        life = each.lifespan
        rounds = f"{life.mean:.1f}" if life.sd else f"{life.mean:g}"
        rounds += f" ± {life.sd:.1f}" if life.sd else ""
        rows.append(
            (
                each.group,
                [
                    percent(start.mean) if start.at == 0 else NONE,
                    ("≥ " if each.outlives else "") + rounds,
                    percent(each.band[-1].mean),
                ],
            )
        )
    return rows
