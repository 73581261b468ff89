"""What the numbers say, as sentences; each is computed, and says what it is computed from."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from claim import prose
from claim.design import CONFIGURATIONS, Labels, design
from claim.lines import Line
from claim.results import BROKEN, HOLDS, Results, cells, conditions
from claim.texts import NAMES, counted, listed, percent, where
from entity.defenses import DEFENSES

TEN = tuple(f"C{number}" for number in range(1, 11))


def ten(defense: str) -> list[Labels]:
    """Return the cell of each of the ten configurations: at 5 %/40 %."""
    found = design(CONFIGURATIONS)
    chosen: list[Labels] = []
    for name in TEN:
        chosen += cells(found, configuration=name, rate="5%", mcr="40%", defense=defense)
    return chosen


@dataclass(frozen=True)
class Tally:
    """How a defense did over some cells in which the attack works."""

    known: list[tuple[Labels, float]]
    void: list[Labels]
    open: list[Labels]
    """Not run yet, or it is not known whether the attack works."""

    @classmethod
    def of(cls, results: Results, study: str, chosen: Sequence[Labels]) -> "Tally":
        """Look at some cells of one defense."""
        worst = {labels: results.worst(study, labels) for labels in chosen}
        known = [(labels, each) for labels, each in worst.items() if each is not None]
        void = [labels for labels in chosen if results.void(study, labels)]
        rest = [each for each in chosen if worst[each] is None and each not in void]
        return cls(known, void, rest)

    def __add__(self, other: "Tally") -> "Tally":
        """Return the tally over the cells of both."""
        return Tally(self.known + other.known, self.void + other.void, self.open + other.open)

    @property
    def holding(self) -> list[tuple[Labels, float]]:
        """Cells whose worst ASR is at most `HOLDS`."""
        return [each for each in self.known if each[1] <= HOLDS]

    @property
    def broken(self) -> list[tuple[Labels, float]]:
        """Cells whose worst ASR is at least `BROKEN`."""
        return [each for each in self.known if each[1] >= BROKEN]

    @property
    def missed(self) -> list[tuple[Labels, float]]:
        """Cells whose worst ASR is above `HOLDS`, the broken ones among them."""
        return [each for each in self.known if each[1] > HOLDS]

    def unknown(self) -> str:
        """Say which cells say nothing."""
        parts = [
            *([f"{counted(len(self.void), 'cell')} void"] if self.void else []),
            *([f"{len(self.open)} not run yet"] if self.open else []),
        ]
        return f" ({', '.join(parts)})" if parts else ""


def works(results: Results) -> str:
    """Say in how many configurations the attack works where nobody defends."""
    tally = Tally.of(results, CONFIGURATIONS, ten("undefended"))
    if not tally.known and not tally.void:
        return "No undefended run is finished yet, so that nothing can be said of any defense."
    text = (
        f"Undefended, the backdoor comes (worst ASR of at least {100 * BROKEN:.0f} %) in "
        f"{len(tally.known)} of the ten configurations{tally.unknown()}."
    )
    if tally.void:
        text += f" It does not in {listed(where(CONFIGURATIONS, each) for each in tally.void)}."
    return text


def scope(results: Results) -> str:
    """Say at which rates and shares of malicious clients the attack works at all."""
    tally = Tally.of(results, CONFIGURATIONS, conditions("undefended"))
    if not tally.known:
        return "Nothing counts yet."
    counts = dict.fromkeys(_condition(labels) for labels, _ in tally.known)
    void = [where(CONFIGURATIONS, labels) for labels in tally.void]
    said = f"All that counts so far is at {listed(counts)}"
    if void:
        said += f"; {listed(void)} {'is' if len(void) == 1 else 'are'} void"
    return f"{said}. {prose.SCOPE}" if [*counts] == ["5 %/40 %"] else f"{said}."


def outdated(results: Results) -> str:
    """Say which runs are of an earlier revision of their defense; nothing, if none is."""
    of: dict[str, list[int]] = {}
    for line in results.lines:
        if line.outdated and line.revision is not None:
            of.setdefault(line.cell["defense"], []).append(line.revision)
    return " ".join(
        f"Of {NAMES[defense]}, {counted(len(found), 'run')} {'is' if len(found) == 1 else 'are'} "
        f"of revision {listed(map(str, sorted(set(found))))}; the one that is shipped is "
        f"{DEFENSES[defense].revision}."
        for defense, found in of.items()
    )


def _condition(labels: Labels) -> str:
    return where(CONFIGURATIONS, labels).split(" at ")[1]


def in_all_ten(results: Results, defense: str) -> str:
    """Answer whether a defense holds in all ten configurations."""
    tally = Tally.of(results, CONFIGURATIONS, ten(defense))
    name = NAMES[defense]
    if not tally.known:
        return f"**Does {name} hold in all ten?** Not known yet{tally.unknown()}."
    worst, most = max(tally.known, key=lambda each: each[1])
    kept = len(tally.holding)
    if kept == 10:
        seeds = design(CONFIGURATIONS).seeds
        whole = all(len(results.of(CONFIGURATIONS, x)) == len(seeds[x]) for x in ten(defense))
        said = "Yes" if whole else "Yes, in the seeds that were run"
    elif kept == len(tally.known):
        said = (
            f"It holds in all {kept} that count" if kept > 1 else "It holds in the one that counts"
        )
    else:
        said = f"No: it holds in {kept} of {len(tally.known)}, and not in " + listed(
            f"{where(CONFIGURATIONS, labels)} ({percent(value)} %)"
            for labels, value in tally.missed
        )
    return (
        f"**Does {name} hold in all ten?** {said}{tally.unknown()}. Its highest worst ASR is "
        f"{percent(most)} %, in {where(CONFIGURATIONS, worst)}; holding is at most "
        f"{100 * HOLDS:.0f} % in every round of acceptable MTA."
    )


def everywhere(results: Results, defense: str) -> str:
    """Say how a defense did over all cells of MNIST that count."""
    tally = Tally.of(results, CONFIGURATIONS, conditions(defense))
    if not tally.known:
        return f"{NAMES[defense]} was not run yet where the attack works{tally.unknown()}."
    number = len(tally.known)
    return (
        f"{NAMES[defense]} holds in {len(tally.holding)} and is broken in {len(tally.broken)} of "
        f"{counted(number, 'cell')}{tally.unknown()}."
    )


def median_fails(results: Results, paper: Sequence[float]) -> str:
    """Answer whether Median fails as it does in the paper, whose figures are given."""
    tally = Tally.of(results, CONFIGURATIONS, conditions("median"))
    said = (
        f"**Does Median fail where the paper says so?** The paper has {percent(min(paper))} to "
        f"{percent(max(paper))} % in the cells on EMNIST that are like ours. "
    )
    if not tally.known:
        return f"{said}Here it is not known yet{tally.unknown()}."
    number, broken = len(tally.known), len(tally.broken)
    answer = "Yes" if broken == number else "No" if not broken else "In part"
    return (
        f"{said}{answer}: here it is broken (at least {100 * BROKEN:.0f} %) in {broken} of "
        f"{counted(number, 'cell')} and holds in {len(tally.holding)}{tally.unknown()}."
    )


def price(results: Results, defense: str) -> str:
    """Say what a defense costs in accuracy where the attack works, beside the undefended run."""
    pairs: list[tuple[float, float]] = []
    for labels in conditions(defense):
        for line in results.counted(CONFIGURATIONS, labels):
            twin = results.at(CONFIGURATIONS, (*labels[:3], "undefended"), line.seed)
            if twin is not None and twin.mta is not None and line.mta is not None:
                pairs.append((line.mta, twin.mta))
    if not pairs:
        return ""
    lost = [undefended - defended for defended, undefended in pairs]
    mean, most = 100 * fmean(lost), 100 * max(0.0, *lost)
    return (
        f"{NAMES[defense]} ends {abs(mean):.1f} points of MTA {'below' if mean >= 0 else 'above'} "
        f"the undefended run of the same seed on average; it loses at most {most:.1f} "
        f"({counted(len(lost), 'pair')})."
    )


def who_is_refused(results: Results, defense: str) -> str:
    """Say how many attackers and honest clients a defense refuses, and at least and at most."""
    lines = [
        line for labels in conditions(defense) for line in results.counted(CONFIGURATIONS, labels)
    ]
    attackers = [line.tpr for line in lines if line.tpr is not None]
    honest = [line.fpr for line in lines if line.fpr is not None]
    if not attackers or not honest:
        return ""
    return (
        f"{NAMES[defense]} refused {span(attackers)} of the attackers' updates and "
        f"{span(honest)} of the honest ones, by run."
    )


def span(shares: Sequence[float]) -> str:
    """Write the lowest and the highest of some shares in percent."""
    low, high = percent(min(shares)), percent(max(shares))
    return f"{low} %" if low == high else f"{low} to {high} %"


def core_hours(lines: Sequence[Line]) -> float:
    """Return the hours that some runs took, a core each."""
    return sum(line.seconds for line in lines) / 3600
