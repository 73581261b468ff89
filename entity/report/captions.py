"""Captions of figures: what is drawn, over how many seeds, and what bands and signs mean."""

from collections.abc import Mapping, Sequence

from entity.record.window import span
from entity.report.entries import Entry
from entity.report.roc import rocs
from entity.report.seed_bands import bands_of, by_group
from entity.results.tables import escape_latex

LEGEND = 16
"""Groups up to which a legend names them; more would be larger than the figure."""

_CURVES = {
    "mta": "Main-task accuracy on clean test images over the rounds.",
    "asr": "Attack success rate, the share of triggered test images that the global model takes "
    "for the target class, over the rounds.",
}


def captions(entries: Sequence[Entry], names: Sequence[str]) -> dict[str, str]:
    """Write a caption for each figure, in plain text.

    Parameters
    ----------
    entries
        The runs.
    names
        Some of `paper_figures.FIGURES`.
    """
    written = {
        "mta": _curves(entries, "mta"),
        "asr": _curves(entries, "asr"),
        "roc": _roc(entries),
        "heat": _heat(entries),
    }
    return {name: written[name] for name in names}


def latex_captions(said: Mapping[str, str]) -> str:
    """Return a `figure` environment for each caption."""
    lines = [r"% needs \usepackage{graphicx}; the files lie in figures/"]
    for name, caption in said.items():
        wide = "*" if name == "heat" else ""
        lines += [
            rf"\begin{{figure{wide}}}[t]",
            r"  \centering",
            rf"  \includegraphics[width=\{'textwidth' if wide else 'columnwidth'}]"
            f"{{figures/{name}.pdf}}",
            rf"  \caption{{{escape_latex(caption)}}}",
            rf"  \label{{fig:{name}}}",
            rf"\end{{figure{wide}}}",
        ]
    return "\n".join(lines) + "\n"


def _curves(entries: Sequence[Entry], metric: str) -> str:
    groups = by_group(entries)
    drawn = [band for band in bands_of(groups, "mta" if metric == "mta" else "asr") if band]
    said = [_CURVES[metric], _seeds([max(point.n for point in band) for band in drawn])]
    if len(drawn) > LEGEND:
        said.append(_ON_THE_PAGE.format(len(drawn)))
    return " ".join(said)


_ON_THE_PAGE = "The {} lines are named on the page alone."


def _seeds(counts: Sequence[int]) -> str:
    low, high = min(counts, default=1), max(counts, default=1)
    if high < 2:
        return "One seed each, so there are no bands."
    over = f"{high}" if low == high else f"{low} to {high}"
    return (
        f"Lines are means over {over} seeds; bands are one sample standard deviation (divisor "
        "n - 1) to each side of them, cut off at 0 and 100 %."
    )


def _roc(entries: Sequence[Entry]) -> str:
    found = rocs(entries)
    said = (
        "Receiver operating curves of the defenses' scores, pooled over all rounds and seeds: the "
        "share of poisoned against the share of honest updates beyond every threshold."
    )
    if any(roc.decided for roc in found):
        said += " Signs filled with white are the rates of the verdicts that were given."
    return f"{said} {_ON_THE_PAGE.format(len(found))}" if len(found) > LEGEND else said


def _heat(entries: Sequence[Entry]) -> str:
    whole = [entry for entry in entries if entry.run.complete]
    window = span(entry.outcome.window for entry in whole)
    left = len(entries) - len(whole)
    said = (
        f"Attack success rate in percent, mean of the {window} and over seeds, by the share of a "
        "malicious client's victim images that it poisons (DPR) and the share of clients that are "
        "malicious (MCR)."
    )
    return f"{said} Unfinished runs are left out: {left}." if left else said
