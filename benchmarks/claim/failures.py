"""When a defense fails in the ten configurations, and what may be the reason."""

from pages import markdown

from claim import prose
from claim.design import CONFIGURATIONS, Labels
from claim.findings import Tally, span, ten
from claim.lines import Line
from claim.results import Results
from claim.texts import NAMES, NONE, listed, percent


def section(results: Results) -> str:
    """Return the part of the page on failures; empty before there is anything to say."""
    if not Tally.of(results, CONFIGURATIONS, ten("droplet")).known:
        return ""
    said = [when(results, each) for each in ("droplet", "drop", "median")]
    parts = [
        "### When they fail, and why",
        "\n".join(f"- {each}" for each in said if each),
        prose.ONE_DRAW,
        prose.BAR,
        what_clustering_sees(results, "drop"),
    ]
    return "\n\n".join(part for part in parts if part)


def when(results: Results, defense: str) -> str:
    """Say in which round the misses of a defense are worst, and what is left of them at the end."""
    missed = Tally.of(results, CONFIGURATIONS, ten(defense)).missed
    said = [
        f"in {labels[0]} {percent(worst)} % in round {line.worst_round} of {line.rounds} and "
        f"{percent(line.asr)} % after the last"
        for labels, worst in missed
        for line in results.counted(CONFIGURATIONS, labels)
        if line.worst_asr == worst
    ]
    return f"{NAMES[defense]}'s ASR where it does not hold: {listed(said)}." if said else ""


def what_clustering_sees(results: Results, defense: str) -> str:
    """Show how far apart Ward's two groups are in every configuration, and what that tells."""
    tally = Tally.of(results, CONFIGURATIONS, ten(defense))
    lines = {
        labels: line
        for labels, _ in tally.known
        for line in results.counted(CONFIGURATIONS, labels)
        if line.separation is not None and line.tpr is not None
    }
    if not lines:
        return ""
    heads = ["", *(labels[0] for labels in lines)]
    rows = [
        ["worst ASR %", *(percent(line.worst_asr) for line in lines.values())],
        ["times as high", *(_times(line) for line in lines.values())],
        ["attackers refused %", *(percent(line.tpr) for line in lines.values())],
        ["honest refused %", *(percent(line.fpr) for line in lines.values())],
    ]
    between = [each for each in tally.missed if each not in tally.broken]
    groups = (
        (tally.broken, "is broken"),
        (between, "does not hold, and is not broken"),
        (tally.holding, "holds"),
    )
    said = [_group([each[0] for each in found], what, lines) for found, what in groups]
    joined = "; ".join(each for each in said if each)
    reading = _reading(tally, between, lines)
    return (
        f"**What the clustering of {NAMES[defense]} sees**: by how many times the last merge of "
        "Ward's tree is as high as the one before, in the median round of the whole run.\n\n"
        f"{markdown(heads, rows)}\n\n"
        f"{joined[0].upper()}{joined[1:]}. {reading}".rstrip()
    )


def _times(line: Line) -> str:
    return NONE if line.separation is None else f"{line.separation:.1f}"


def _group(cells: list[Labels], what: str, lines: dict[Labels, Line]) -> str:
    found = {labels: lines[labels] for labels in cells if labels in lines}
    if not found:
        return ""
    seen = sorted(_times(line) for line in found.values())
    times = seen[0] if seen[0] == seen[-1] else f"{seen[0]} to {seen[-1]}"
    refused = span([line.tpr for line in found.values() if line.tpr is not None])
    return (
        f"where it {what} ({listed(labels[0] for labels in found)}) that is {times} times, and "
        f"{refused} of the attackers' updates are refused"
    )


def _reading(tally: Tally, between: list[tuple[Labels, float]], lines: dict[Labels, Line]) -> str:
    """Say whether the figure tells the cells that are missed from those that are held."""
    far = {
        name: [line.separation for labels, _ in found if (line := lines.get(labels)) is not None]
        for name, found in (("missed", between), ("holding", tally.holding))
    }
    missed = [each for each in far["missed"] if each is not None]
    holding = [each for each in far["holding"] if each is not None]
    if not missed or not holding or max(missed) < min(holding):
        return ""
    names = listed(labels[0] for labels, _ in between if labels in lines)
    return f"So it does not tell {names} from the cells that are held. {prose.CLUSTERING}"
