"""Certified accuracy: the share of test images that an attack of a given size leaves right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from entity.record.json_fields import mapping, number
from entity.report.entries import Entry, Group
from entity.report.plotly_figure import Figure, Object, plain
from entity.report.seed_bands import by_group
from entity.results.formatting import NONE, percent


@dataclass(frozen=True)
class Certificate:
    """The certificates of one group of runs, their images pooled."""

    group: Group
    images: int
    right: float
    """Images that the smoothed model classifies rightly."""
    radii: tuple[float, ...]
    """Of those that are right and certified, increasing."""
    departures: tuple[str, ...]
    """Assumptions of the theorem that some of these runs break."""

    @property
    def curve(self) -> tuple[list[float], list[float]]:
        """Radii from 0 on, and the share of images that is certified beyond each.

        Examples
        --------
        >>> group = Group(0, "crfl", (0,))
        >>> Certificate(group, 4, 3, (0.1, 0.3), ()).curve
        ([0.0, 0.1, 0.3], [0.5, 0.25, 0.0])
        """
        count = len(self.radii)
        shares = [(count - place) / self.images for place in range(count + 1)]
        return [0.0, *self.radii], shares

    @property
    def median(self) -> float | None:
        """The largest radius at which half of the images are certified; None for fewer."""
        short = len(self.radii) - (self.images + 1) // 2
        return self.radii[short] if short >= 0 else None


def certificates(entries: Sequence[Entry]) -> list[Certificate]:
    """Return the certificates of all groups whose runs have one."""
    pooled = ((group[0].group, _parts(group)) for group in by_group(entries))
    return [_pooled(group, parts) for group, parts in pooled if parts]


def _parts(entries: Sequence[Entry]) -> list[Mapping[str, object]]:
    parts = (mapping(entry.run.summary.get("certificate")) for entry in entries)
    return [part for part in parts if number(part, "images")]


def _pooled(group: Group, parts: Sequence[Mapping[str, object]]) -> Certificate:
    images = sum(int(number(part, "images") or 0) for part in parts)
    right = sum(
        (number(part, "accuracy") or 0.0) * (number(part, "images") or 0.0) for part in parts
    )
    radii = [value for part in parts for value in _list(part, "radii") if isinstance(value, float)]
    departures = [str(words) for part in parts for words in _list(part, "departures")]
    return Certificate(group, images, right, tuple(sorted(radii)), tuple(dict.fromkeys(departures)))


def _list(part: Mapping[str, object], key: str) -> list[object]:
    value = part.get(key)
    return cast("list[object]", value) if isinstance(value, list) else []


def draw_certificates(found: Sequence[Certificate]) -> Figure | None:
    """Draw certified accuracy over the radius; None for none."""
    if not found:
        return None
    traces: list[Object] = []
    for each in found:
        radii, shares = each.curve
        traces.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(each.group.label),
                "meta": each.group.index,
                "x": [float(f"{radius:.4g}") for radius in radii],
                "y": [round(share, 5) for share in shares],
                "line": {
                    "shape": "hv",
                    "color": each.group.colour,
                    "dash": each.group.dash,
                    "width": 2,
                },
                "hovertemplate": "%{fullData.name}: %{y:.1%} certified beyond %{x}<extra></extra>",
            }
        )
    layout: Object = {
        "hovermode": "closest",
        "xaxis": {"title": {"text": "radius times Lipschitz constant"}, "rangemode": "tozero"},
        "yaxis": {"range": [-0.015, 1.02], "tickformat": ".0%", "nticks": 6},
        "margin": {"l": 48, "r": 14, "t": 12, "b": 46},
    }
    said = "; ".join(
        f"{each.group.label}: {percent(len(each.radii) / each.images)} certified" for each in found
    )
    return Figure(traces, layout, 330, f"Certified accuracy over the radius. {said}.")


def table(found: Sequence[Certificate]) -> list[tuple[Group, list[str]]]:
    """Write images, smoothed and certified accuracy, and the median radius of each group."""
    return [
        (
            each.group,
            [
                f"{each.images:,}",
                percent(each.right / each.images),
                percent(len(each.radii) / each.images),
                NONE if each.median is None else f"{each.median:.3g}",
            ],
        )
        for each in found
    ]


def departures(found: Sequence[Certificate]) -> list[tuple[Group, str]]:
    """Return for each group the assumptions that its runs break, as one text; nothing for none."""
    return [(each.group, "; ".join(each.departures)) for each in found if each.departures]
