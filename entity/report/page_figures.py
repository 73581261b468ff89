"""All that is drawn on the page of some runs, and what its captions and side tables say."""

from collections.abc import Sequence
from dataclasses import dataclass

from entity.report import certified, durability, pareto, roc
from entity.report.blocks import blocks
from entity.report.curves import draw_curves
from entity.report.dendrogram import TreeFigure, draw_trees
from entity.report.entries import Entry, Group
from entity.report.generated_images import Sheet, draw_sheets
from entity.report.heat import Heat, draw_heat, heats
from entity.report.phases import draw_phases
from entity.report.plotly_figure import Figure, Object
from entity.report.rank_figure import Ranked, draw_ranks, ranked
from entity.report.verdict_map import VerdictMap, draw_verdicts

DETAIL = 200_000
"""Verdicts on one page up to which hovering tells the reason; more would weigh too much."""

Rows = list[tuple[Group, list[str]]]
"""A side table: the cells of each group of runs."""


@dataclass(frozen=True)
class PageFigures:
    """What `page.html` shows of the figures."""

    by_name: dict[str, Figure]
    """The figures by the ids of their places in the page."""
    earlier_trees: dict[str, Figure]
    """Trees of rounds before the last, which a slider puts in its place."""
    maps: list[tuple[Entry, VerdictMap]]
    trees: list[tuple[Entry, list[TreeFigure]]]
    """Of every run that has some, the last round last."""
    heats: list[Heat]
    ranks: list[Ranked]
    """Of defenses over many settings, where these are enough to rank."""
    sheets: list[tuple[Entry, Sheet]]
    areas: Rows
    """AUC and rates beside the receiver operating curves."""
    lifespans: Rows
    """Durability of each backdoor after the attack stopped."""
    certificates: Rows
    """Certified accuracy, for defenses that certify."""
    unproven: list[tuple[Group, str]]
    """The assumptions of the certificate's theorem that runs of a group break."""
    detail: bool
    """Whether hovering over a verdict tells the reason."""

    def specs(self) -> dict[str, Object]:
        """Return what `page.js` draws, by name."""
        return {name: figure.spec() for name, figure in (self.by_name | self.earlier_trees).items()}


def draw_figures(entries: Sequence[Entry]) -> PageFigures:
    """Draw all figures for which the runs have data."""
    detail = sum(entry.outcome.judged for entry in entries) <= DETAIL
    drawn = [(entry, draw_verdicts(entry, detail=detail)) for entry in entries]
    maps = [(entry, verdicts) for entry, verdicts in drawn if verdicts]
    trees, panels = draw_trees(entries), heats(entries)
    rocs, lives = roc.rocs(entries), durability.durabilities(entries)
    proofs = certified.certificates(entries)
    settings = blocks(entries)
    places, costs = ranked(settings), pareto.offers(settings)
    sheets = draw_sheets([entry.run.images for entry in entries])
    charts = {
        "curves": draw_curves(entries),
        "phases": draw_phases(entries),
        "roc": roc.draw_rocs(rocs),
        "durability": durability.draw_durability(lives),
        "certified": certified.draw_certificates(proofs),
    }
    by_name = {name: figure for name, figure in charts.items() if figure}
    by_name |= {f"map-{entry.index}": verdicts.figure for entry, verdicts in maps}
    by_name |= {f"ranks-{each.metric}": draw_ranks(each) for each in places}
    if places and len(costs) > 2:
        by_name |= {f"pareto-{kind}": pareto.draw_pareto(costs, kind) for kind in pareto.TITLES}
    by_name |= {f"heat-{place}": draw_heat(heat) for place, heat in enumerate(panels)}
    by_name |= {f"tree-{entry.index}": of_run[-1].figure for entry, of_run in trees}
    return PageFigures(
        by_name=by_name,
        earlier_trees={
            f"tree-{entry.index}@{tree.round}": tree.figure
            for entry, of_run in trees
            for tree in of_run[:-1]
        },
        maps=maps,
        trees=trees,
        heats=panels,
        ranks=places,
        sheets=[(entry, sheet) for entry, sheet in zip(entries, sheets, strict=True) if sheet],
        areas=roc.table(rocs),
        lifespans=durability.table(lives),
        certificates=certified.table(proofs),
        unproven=certified.departures(proofs),
        detail=detail,
    )
