"""The report's figures as axes of matplotlib, which is imported here, when one is asked for."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from entity.config.schema import ConfigError, unknown
from entity.report.entries import make_entries
from entity.report.paper_figures import FIGURES, figures, require_matplotlib
from entity.report.runs import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot(
    runs: Sequence[RunRecord], names: Sequence[str], titles: Mapping[str, str] | None = None
) -> "dict[str, Axes]":
    """Draw figures of `drop report` with pyplot, so that a notebook or `pyplot.show()` shows them.

    Parameters
    ----------
    runs
        The runs; those that differ by their seed alone are one curve in a band.
    names
        Some of `mta`, `asr`, `roc` (where updates were scored) and `heat` (where runs differ in
        poisoning rate and share of malicious clients); none for all that there is data for.
    titles
        What methods are called, before their published names.

    Returns
    -------
    dict
        The axes by the name of the figure, for titles, limits and `axes.figure.savefig`. Of a heat
        map with several panels, the first.

    Raises
    ------
    ConfigError
        For another name, for one without data, and without matplotlib.
    """
    for name in names:
        if name not in FIGURES:
            raise ConfigError(unknown(f"figure {name}", name, FIGURES))
    require_matplotlib()
    from matplotlib import pyplot

    drawn = figures(make_entries(runs, titles), names or FIGURES, pyplot.figure)
    for name in names:
        if name not in drawn:
            raise ConfigError(f"figure {name}: these runs have no data for it.")
    return {name: figure.axes[0] for name, figure in drawn.items()}
