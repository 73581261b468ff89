"""Figures for papers, PNG and PDF: curves with bands, detection ROC, heat maps.

Drawn by matplotlib, not by plotly, which the page has anyway: plotly's way to a PDF is kaleido, a
whole browser that has to be installed and started for each export, and its text cannot be made to
match a paper's as exactly. Figures are built without pyplot, so nothing global is touched and no
display is needed, and carry no date: the same runs give the same bytes.
"""

import io
import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from entity.config.schema import ConfigError
from entity.report.entries import COLOURS, Entry, Group
from entity.report.heat import Heat, heats
from entity.report.plotly_figure import shorten
from entity.report.roc import rocs
from entity.report.seed_bands import by_group, over_seeds, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN = 3.4
"""Width of a column of a two-column paper, inches."""

INK, GRID = "#1d2125", "#e3e1da"
PALETTE = (
    *("#d55e00", "#0072b2", "#009e73", "#b5558f", "#c98a00", "#56b4e9", "#1d2125", "#8a8f96"),
)
"""Okabe and Ito's colours in the order of `--run-1` to `--run-8`."""

STYLES = ("-", "--", ":", "-.", (0, (8, 2)), (0, (8, 2, 2, 2)))
FIGURES = ("mta", "asr", "roc", "heat")
"""Names of the figures."""

LEGEND = 16
"""Groups up to which a legend names them; more would be larger than the figure."""

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,  # TrueType: some publishers refuse matplotlib's default, Type 3
}


def missing_extra() -> str:
    """Say what is missing for figures, "" if nothing is."""
    if find_spec("matplotlib") is None:
        return "figures need matplotlib, which is not installed: pip install -e '.[figures]'"
    return ""


def draw_paper_figures(entries: Sequence[Entry]) -> dict[str, bytes]:
    """Draw all figures for which the runs have data.

    Returns
    -------
    dict
        Content by name, such as `asr.pdf`; empty without runs.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    files: dict[str, bytes] = {}
    with rc_context(_STYLE):
        for name, figure in figures(entries, FIGURES, Figure).items():
            files[f"{name}.png"] = _saved(figure, "png")
            files[f"{name}.pdf"] = _saved(figure, "pdf")
    return files


def require_matplotlib() -> None:
    """Refuse to go on without matplotlib.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    if lacking := missing_extra():
        raise ConfigError(f"{lacking}.")


def figures(
    entries: Sequence[Entry], names: Sequence[str], make: "Callable[..., Figure]"
) -> dict[str, "Figure"]:
    """Draw figures for which the runs have data, by name.

    Parameters
    ----------
    entries
        The runs.
    names
        Some of `FIGURES`.
    make
        Makes an empty figure: the class of matplotlib, or `pyplot.figure` for one that is shown.
    """
    from matplotlib import rc_context

    plates: dict[str, Callable[[], Figure | None]] = {
        "mta": lambda: _curves(entries, "mta", make),
        "asr": lambda: _curves(entries, "asr", make),
        "roc": lambda: _rocs(entries, make),
        "heat": lambda: _heats(heats(entries), make),
    }
    with rc_context(_STYLE):
        drawn = {name: plates[name]() for name in names}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _saved(figure: "Figure", kind: Literal["png", "pdf"]) -> bytes:
    stamp = {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None}
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=300, bbox_inches="tight", metadata=stamp)
    return content.getvalue()


def _sheet(make: "Callable[..., Figure]", width: float, height: float) -> tuple["Figure", "Axes"]:
    figure = make(figsize=(width, height))
    return figure, figure.add_subplot()


def _look(group: Group) -> tuple[str, object]:
    place = group.index
    return PALETTE[place % COLOURS], STYLES[place // COLOURS % len(STYLES)]


def _curves(
    entries: Sequence[Entry], metric: Literal["mta", "asr"], make: "Callable[..., Figure]"
) -> "Figure | None":
    """Draw means over seeds in bands of one sample standard deviation to each side."""
    from matplotlib.ticker import MaxNLocator

    groups = by_group(entries)
    bands = [over_seeds([series(entry.run, metric) for entry in group]) for group in groups]
    if not any(bands):
        return None
    figure, axes = _sheet(make, COLUMN, 2.2)
    for group, band in zip(groups, bands, strict=True):
        if not band:
            continue
        colour, style = _look(group[0].group)
        at = [point.at for point in band]
        axes.plot(
            at,
            [100 * point.mean for point in band],
            color=colour,
            linestyle=style,
            linewidth=1.2,
            marker="o" if len(band) == 1 else None,
            markersize=3,
            label=shorten(group[0].group.label),
        )
        if any(point.sd is not None for point in band):
            low, high = ([100 * getattr(p, edge) for p in band] for edge in ("low", "high"))
            axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("round")
    axes.set_ylabel("main-task accuracy (%)" if metric == "mta" else "attack success rate (%)")
    if metric == "asr":
        axes.set_ylim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _legend(axes, len(groups))
    return figure


def _rocs(entries: Sequence[Entry], make: "Callable[..., Figure]") -> "Figure | None":
    found = rocs(entries)
    if not found:
        return None
    figure, axes = _sheet(make, COLUMN, COLUMN)
    axes.plot([0, 100], [0, 100], color=GRID, linewidth=0.8, linestyle=":")
    for roc in found:
        colour, style = _look(roc.group)
        name = f"{shorten(roc.group.label)} (AUC {roc.auc:.3f})"
        axes.plot(
            100 * roc.fpr, 100 * roc.tpr, color=colour, linestyle=style, linewidth=1.2, label=name
        )
        if roc.decided:
            fpr, tpr = roc.decided
            axes.plot(
                100 * fpr, 100 * tpr, "D", color=colour, markerfacecolor="white", markersize=4
            )
    axes.set_xlabel("honest updates flagged (%)")
    axes.set_ylabel("poisoned updates flagged (%)")
    axes.set_aspect("equal")
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    _legend(axes, len(found))
    return figure


def _legend(axes: "Axes", names: int) -> None:
    """Name the curves below the figure, where they hide none."""
    if 1 < names <= LEGEND:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2 if names > 4 else 1)


def _heats(found: Sequence[Heat], make: "Callable[..., Figure]") -> "Figure | None":
    """Draw a map for each defense and attack, at most four beside each other."""
    from matplotlib.colors import LinearSegmentedColormap

    if not found:
        return None
    colours = LinearSegmentedColormap.from_list("asr", ["#ffffff", "#e8925a"])
    across = min(4, len(found))
    down = math.ceil(len(found) / across)
    tall = max(len(heat.shares) for heat in found)
    figure = make(figsize=(1.8 * across, (0.75 + 0.35 * tall) * down), layout="constrained")
    for place, heat in enumerate(found, start=1):
        axes = figure.add_subplot(down, across, place)
        grid = [[100 * one.mean if one else math.nan for one in row] for row in heat.asr]
        axes.imshow(grid, cmap=colours, vmin=0, vmax=100, aspect="auto", origin="lower")
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if not math.isnan(value):
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=INK)
        axes.set_title(shorten(heat.label), fontsize=8)
        axes.set_xticks(range(len(heat.dprs)), [f"{100 * one:g}" for one in heat.dprs])
        axes.set_yticks(range(len(heat.shares)), [f"{100 * one:g}" for one in heat.shares])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        if (place - 1) % across == 0:
            axes.set_ylabel("MCR (%)")
        if place > len(found) - across:
            axes.set_xlabel("DPR (%)")
    return figure
