"""Figures for papers, PNG and PDF: curves with bands, detection ROC, heat maps.

Drawn by matplotlib, not by plotly, which the page has anyway: plotly's way to a PDF is kaleido, a
whole browser that has to be installed and started for each export, and its text cannot be made to
match a paper's as exactly. Figures are built without pyplot, so nothing global is touched and no
display is needed, and carry no date: the same runs give the same bytes.

Lines differ in style and sign as well as in colour, so that they are told apart in grey print.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from entity.config.schema import ConfigError, show, suggest
from entity.report.captions import LEGEND, captions, latex_captions
from entity.report.entries import Entry, Group
from entity.report.heat import Heat, heats
from entity.report.overlaps import signs
from entity.report.plotly_figure import shorten_all
from entity.report.roc import rocs
from entity.report.seed_bands import bands_of, by_group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

COLUMN = 3.4
"""Width of a column of a two-column paper, inches."""

WIDTHS = (1.5, 20.0)
"""Widths that a figure may have, inches."""

INK, GRID = "#1d2125", "#e3e1da"
PALETTE = (
    *("#c44e00", "#0068ad", "#009a70", "#b5508c", "#dc9c00", "#4fb0e6", "#1d2125", "#9aa0a6"),
)
"""The colours of the light page in the order of `--run-1` to `--run-8`."""

STYLES = (
    *("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (9, 2))),
    *((0, (3, 1, 1, 1, 1, 1)), (0, (2, 3)), (0, (9, 2, 3, 2))),
)
"""Of the first group, the second and so on, whatever its colour: dashes lie upon solid lines."""

SIGNS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "cross": "P",
    "x": "X",
    "pentagon": "p",
    "star": "*",
}
"""The signs of `looks` in matplotlib's words."""

FIGURES = ("mta", "asr", "roc", "heat")
FILES = (
    *(f"{n}.{kind}" for n in FIGURES for kind in ("png", "pdf")),
    "captions.md",
    "captions.tex",
)
"""All that `draw_paper_figures` may make."""
"""Names of the figures."""

GENERIC = ("serif", "sans-serif", "monospace", "cursive", "fantasy")


@dataclass(frozen=True)
class FigureStyle:
    """What a paper asks of its figures.

    Raises
    ------
    BadStyle
        For a width or a size that no figure can have.
    """

    width: float = COLUMN
    """Of a figure, inches; a row of heat maps is twice as wide."""
    font: str = "sans-serif"
    """Family: installed on this machine, or one of `GENERIC`."""
    size: float = 8
    """Of its text, points."""

    def __post_init__(self) -> None:
        low, high = WIDTHS
        if not low <= self.width <= high:
            raise BadStyle(
                f"figure-width = {self.width:g}: allowed are {low:g} to {high:g} inches."
            )
        if not 3 <= self.size <= 40:
            raise BadStyle(f"figure-font-size = {self.size:g}: allowed are 3 to 40 points.")

    def check_font(self) -> None:
        """Refuse a font that matplotlib does not find.

        Raises
        ------
        BadStyle
            With the fonts that come nearest.
        """
        from matplotlib.font_manager import fontManager

        known = sorted({*GENERIC, *fontManager.get_font_names()})
        if self.font not in known:
            hint = (
                suggest(self.font, known) or f" Allowed: {', '.join(GENERIC)}, or an installed one."
            )
            raise BadStyle(f"figure-font = {show(self.font)}: is no font on this machine.{hint}")

    def settings(self) -> dict[Any, Any]:
        """Return matplotlib's settings."""
        family = {"font.family": self.font, "mathtext.fontset": "dejavusans"}
        return {**_STYLE, **family, "font.size": self.size, "legend.fontsize": self.size - 1}


class BadStyle(ConfigError):
    """No figure can be like this; the sentence begins with the option."""


_STYLE: dict[Any, Any] = {
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
    "pdf.fonttype": 42,  # TrueType: some publishers refuse matplotlib's default, Type 3
}


def missing_extra() -> str:
    """Say what is missing for figures, "" if nothing is."""
    if find_spec("matplotlib") is None:
        return "figures need matplotlib, which is not installed: pip install -e '.[figures]'"
    return ""


def draw_paper_figures(
    entries: Sequence[Entry], style: FigureStyle | None = None
) -> dict[str, bytes]:
    """Draw all figures for which the runs have data, and write their captions.

    Parameters
    ----------
    entries
        The runs.
    style
        Width and font; None takes the defaults.

    Returns
    -------
    dict
        Content by name, such as `asr.pdf` and `captions.tex`; empty without runs.

    Raises
    ------
    BadStyle
        For a font that is not installed.
    ConfigError
        If matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = style or FigureStyle()
    style.check_font()
    files: dict[str, bytes] = {}
    with rc_context(style.settings()):
        drawn = figures(entries, FIGURES, Figure, style)
        for name, figure in drawn.items():
            files[f"{name}.png"] = _saved(figure, "png")
            files[f"{name}.pdf"] = _saved(figure, "pdf")
    if drawn:
        said = captions(entries, list(drawn))
        text = "".join(f"**{name}.pdf** {caption}\n\n" for name, caption in said.items())
        files["captions.md"] = text.rstrip("\n").encode() + b"\n"
        files["captions.tex"] = latex_captions(said).encode()
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
    entries: Sequence[Entry],
    names: Sequence[str],
    make: "Callable[..., Figure]",
    style: FigureStyle | None = None,
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
    style
        Width and font; None takes the defaults.
    """
    from matplotlib import rc_context

    style = style or FigureStyle()
    plates: dict[str, Callable[[], Figure | None]] = {
        "mta": lambda: _curves(entries, "mta", make, style),
        "asr": lambda: _curves(entries, "asr", make, style),
        "roc": lambda: _rocs(entries, make, style),
        "heat": lambda: _heats(heats(entries), make, style),
    }
    with rc_context(style.settings()):
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


def _look(group: Group, points: int, place: int, groups: int) -> dict[str, Any]:
    """Return how the line of one of the groups is drawn, which has so many points."""
    alone = groups == 1 and points > 1
    return {
        "color": PALETTE[group.look.colour],
        "linestyle": STYLES[place % len(STYLES)],
        "linewidth": 1.2,
        "marker": None if alone else SIGNS[group.symbol],
        "markevery": signs(points, place, groups),
        "markersize": 4.5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.4,
    }


def _curves(
    entries: Sequence[Entry],
    metric: Literal["mta", "asr"],
    make: "Callable[..., Figure]",
    style: FigureStyle,
) -> "Figure | None":
    """Draw means over seeds in bands of one sample standard deviation to each side."""
    from matplotlib.ticker import MaxNLocator

    groups = by_group(entries)
    drawn = bands_of(groups, metric)
    if not any(drawn):
        return None
    figure, axes = _sheet(make, style.width, 0.65 * style.width)
    names = _words([group[0].group.label for group in groups])
    named: dict[str, Line2D] = {}
    for place, (group, band) in enumerate(zip(groups, drawn, strict=True)):
        if not band:
            continue
        look = _look(group[0].group, len(band), place, len(groups))
        at = [point.at for point in band]
        means = [100 * point.mean for point in band]
        (named[names[place]],) = axes.plot(at, means, label=names[place], **look)
        if any(point.sd is not None for point in band):
            low, high = (
                [math.nan if p.sd is None else 100 * getattr(p, edge) for p in band]
                for edge in ("low", "high")
            )
            axes.fill_between(at, low, high, color=look["color"], alpha=0.18, linewidth=0)
    axes.set_xlabel("round")
    axes.set_ylabel("main-task accuracy (%)" if metric == "mta" else "attack success rate (%)")
    if metric == "asr":
        axes.set_ylim(-2, 102)
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _legend(axes, named)
    return figure


def _rocs(
    entries: Sequence[Entry], make: "Callable[..., Figure]", style: FigureStyle
) -> "Figure | None":
    found = rocs(entries)
    if not found:
        return None
    figure, axes = _sheet(make, style.width, style.width)
    axes.plot([0, 100], [0, 100], color=GRID, linewidth=0.8, linestyle=":")
    names = _words([roc.group.label for roc in found])
    named: dict[str, Line2D] = {}
    for place, roc in enumerate(found):
        look = _look(roc.group, len(roc.fpr), place, len(found))
        name = f"{names[place]} (AUC {roc.auc:.3f})"
        (named[name],) = axes.plot(100 * roc.fpr, 100 * roc.tpr, label=name, **look)
        if roc.decided:
            fpr, tpr = roc.decided
            sign, colour = SIGNS[roc.group.symbol], look["color"]
            axes.plot(
                100 * fpr, 100 * tpr, sign, color=colour, markerfacecolor="white", markersize=6
            )
    axes.set_xlabel("honest updates flagged (%)")
    axes.set_ylabel("poisoned updates flagged (%)")
    axes.set_aspect("equal")
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    _legend(axes, named)
    return figure


def _words(labels: Sequence[str]) -> list[str]:
    """Return labels as matplotlib writes them: what stands between dollars is no formula."""
    return [label.replace("$", r"\$") for label in shorten_all(labels)]


def _legend(axes: "Axes", named: "Mapping[str, Line2D]") -> None:
    """Name the curves below the figure, where they hide none.

    The names come last: matplotlib leaves out labels that begin with an underscore.
    """
    if 1 < len(named) <= LEGEND:
        lines, numbers = list(named.values()), [f"{place}" for place in range(len(named))]
        below = (0.5, -0.2)
        columns = 2 if len(named) > 4 else 1
        legend = axes.legend(
            lines, numbers, loc="upper center", bbox_to_anchor=below, ncols=columns
        )
        for text, name in zip(legend.get_texts(), named, strict=True):
            text.set_text(name)


def _heats(
    found: Sequence[Heat], make: "Callable[..., Figure]", style: FigureStyle
) -> "Figure | None":
    """Draw a map for each defense and attack, at most four beside each other."""
    from matplotlib.colors import LinearSegmentedColormap

    if not found:
        return None
    colours = LinearSegmentedColormap.from_list("asr", ["#ffffff", "#e8925a"])
    across = min(4, len(found))
    down = math.ceil(len(found) / across)
    tall = max(len(heat.shares) for heat in found)
    scale = style.width / COLUMN
    size = (1.8 * across * scale, (0.75 + 0.35 * tall) * down * scale)
    figure = make(figsize=size, layout="constrained")
    titles = _words([heat.label for heat in found])
    for place, (heat, title) in enumerate(zip(found, titles, strict=True), start=1):
        axes = figure.add_subplot(down, across, place)
        grid = [[100 * one.mean if one else math.nan for one in row] for row in heat.asr]
        axes.imshow(grid, cmap=colours, vmin=0, vmax=100, aspect="auto", origin="lower")
        for row, line in enumerate(grid):
            for column, value in enumerate(line):
                if not math.isnan(value):
                    axes.text(column, row, f"{value:.0f}", ha="center", va="center", color=INK)
        axes.set_title(title, fontsize=style.size)
        axes.set_xticks(range(len(heat.dprs)), [f"{100 * one:g}" for one in heat.dprs])
        axes.set_yticks(range(len(heat.shares)), [f"{100 * one:g}" for one in heat.shares])
        axes.grid(visible=False)
        axes.tick_params(length=0)
        if (place - 1) % across == 0:
            axes.set_ylabel("MCR (%)")
        if place > len(found) - across:
            axes.set_xlabel("DPR (%)")
    return figure
