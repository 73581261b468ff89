"""The paper's ASR beside ours, where it has a cell that is like one of ours."""

from dataclasses import dataclass
from functools import cache
from math import isnan
from statistics import fmean

from pages import markdown
from scipy.stats import spearmanr

from claim.design import CONFIGURATIONS, Labels
from claim.results import BROKEN, Results
from claim.texts import NAMES, NONE, counted, defenses, percent
from entity.sweep import study
from entity.sweep.published import Published


@cache
def _published(table: str) -> Published | None:
    return study.find(table).published


@dataclass(frozen=True)
class Point:
    """A condition of ours, and the one of the paper's that is most like it."""

    title: str
    rate: str
    mcr: str
    table: str
    cell: tuple[tuple[str, str], ...]

    def paper(self, defense: str) -> float | None:
        """Return the paper's ASR; None for a defense that it has not."""
        published = _published(self.table)
        figure = published and published.figure("asr", {"defense": defense, **dict(self.cell)})
        return figure.value if figure else None

    def labels(self, defense: str) -> Labels:
        """Return our cell."""
        return "C4", self.rate, self.mcr, defense

    def both(self, results: Results) -> dict[str, tuple[float, float]]:
        """Return the paper's ASR and ours, by the defenses that have both."""
        pairs = {
            defense: (self.paper(defense), results.worst(CONFIGURATIONS, self.labels(defense)))
            for defense in defenses(CONFIGURATIONS)
        }
        return {name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None}


_IN_III = "paper/table-3-emnist"
_IN_VI = "paper/table-6-emnist"
POINTS = (
    Point("1.25 %, 20 %", "1.25%", "20%", _IN_III, (("configuration", "C5"), ("rate", "1.25%"))),
    Point("2.5 %, 20 %", "2.5%", "20%", _IN_III, (("configuration", "C5"), ("rate", "2.5%"))),
    Point(
        "5 %, 40 % (2.5 %, 40 %)", "5%", "40%", _IN_VI, (("configuration", "C9"), ("mcr", "40%"))
    ),
)


def papers_median() -> list[float]:
    """Return the paper's figures of Median at our points."""
    return [value for point in POINTS if (value := point.paper("median")) is not None]


def table(results: Results) -> str:
    """Return both ASRs of every defense at every point."""
    heads = ["defense"]
    for point in POINTS:
        heads += [f"paper: {point.title}", "ours"]
    rows = [
        [NAMES[defense]]
        + [
            text
            for point in POINTS
            for text in (
                percent(point.paper(defense)),
                percent(results.worst(CONFIGURATIONS, point.labels(defense))),
            )
        ]
        for defense in defenses(CONFIGURATIONS)
        if defense != "drop published"
    ]
    return markdown(heads, rows)


def agreement(results: Results) -> list[str]:
    """Say how far the two rankings agree, point by point."""
    said: list[str] = []
    for point in POINTS:
        pairs = point.both(results)
        if len(pairs) < 3:
            said.append(
                f"- {point.title}: {NONE} ({counted(len(pairs), 'defense')} of both so far)"
            )
            continue
        rho = float(spearmanr(*zip(*pairs.values(), strict=True)).statistic)
        same = sum((a >= BROKEN) == (b >= BROKEN) for a, b in pairs.values())
        order = "all of ours are alike" if isnan(rho) else f"rank correlation {rho:+.2f}"
        said.append(
            f"- {point.title}: {order}; {same} of {len(pairs)} defenses are on the same side of "
            f"{100 * BROKEN:.0f} %"
        )
    return said


def differences(results: Results) -> list[str]:
    """Name the defenses that are on the other side of 50 % here, and whom they refused."""
    said: list[str] = []
    for point in POINTS:
        for defense, (theirs, ours) in point.both(results).items():
            if (theirs >= BROKEN) == (ours >= BROKEN):
                continue
            lines = results.counted(CONFIGURATIONS, point.labels(defense))
            attackers = [line.tpr for line in lines if line.tpr is not None]
            honest = [line.fpr for line in lines if line.fpr is not None]
            refused = (
                f"; it refused {percent(fmean(attackers))} % of the attackers' updates and "
                f"{percent(fmean(honest))} % of the honest ones"
                if attackers and honest and max((*attackers, *honest)) > 0
                else ""
            )
            said.append(
                f"- **{NAMES[defense]}** at {point.title}: {percent(theirs)} % in the paper, "
                f"{percent(ours)} % here{refused}."
            )
    return said
