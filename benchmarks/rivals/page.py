"""The page docs/LEADERBOARD.md and its figure, made of the committed lines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pages import markdown

from entity.report.pareto import TITLES as COSTS
from entity.report.pareto import Offer, front
from entity.report.ranks import Ranking
from entity.results.titles import TITLES
from rivals.cost_plot import TITLE as COST_TITLE
from rivals.cost_plot import cost_plots
from rivals.lines import Line, planned
from rivals.rank_plot import rank_plot
from rivals.standing import HOLDS, UNDEFENDED, WORKS, Board, Compared, Standing

HEADS = (
    *("defense", "held", "worst ASR %", "MTA lost", "attackers refused %", "honest refused %"),
    *("server s a round", "again"),
)
NOTES = {
    "fldetector": "whom its detector leaves it aggregates by the coordinate-wise median (`rule`, "
    "its default), so that its figures are to be read beside Median's before the detector has the "
    "credit."
}
"""What is to be known of a row."""
NONE = "\N{EN DASH}"
TITLE = "Mean ranks by worst ASR"

INTRODUCTION = f"""# Leaderboard

All defenses of the package against all attacks, and a client rule, local DP and server optimisers
beside them, on the federation of the front page: `mnist5k`, ten clients, four of them malicious,
all in every round, half of the victim class poisoned, 25 rounds; IID and Dirichlet 0.5. That is
the plan; [what was run](#what-was-run) is the smaller part of it, so far of one seed for the most.
`python benchmarks/leaderboard.py` makes this page of `docs/results/rivals.jsonl`; nothing here is
written by hand. To add to it:
`drop reproduce rivals --where defense=NAME`, then
`python benchmarks/leaderboard.py --runs runs/rivals`. The first is a command of the installed
package; the second needs a clone of the repository.

A block is one attack, data set and seed. An attack works where the undefended run's worst ASR, of
the rounds whose MTA is at least 90 % of the last one's, is at least {100 * WORKS:g} %. No other
block counts for what is held, for worst ASR and for ranks by it. A defense holds where its worst
ASR is at most {100 * HOLDS:g} %. The defenses of a table are compared over the blocks that all of
them have, and ordered by how many they hold, the highest worst ASR and MTA lost; those with fewer
blocks stand apart, and blocks that only some have are in the matrices alone. MTA lost, who is
refused and seconds are means; MTA lost is beside the undefended run of the block, in points; below
zero the defense gains. Undefended is there for reference. All of it is one small federation: it
says which defenses are worth a look, not which is best for yours."""


@dataclass(frozen=True)
class Added:
    """Methods that stand on the page and not in the study."""

    options: str = ""
    """Of `drop reproduce`, with which it has them."""
    figure: str = "study/ranks.svg"
    """Where the plot of ranks is, seen from the page."""
    costs: str = "study/costs.svg"
    """Where the plots of costs are."""


def page(lines: Sequence[Line], added: Added | None = None) -> str:
    """Return the page; `added` says which methods are none of the study."""
    added = added or Added()
    board = Board(lines)
    parts = [
        INTRODUCTION,
        f"Methods were added by `drop reproduce rivals {added.options}`." if added.options else "",
        _run(lines),
        *(_standings(board, data, added) for data in _labels("data")),
        _costs(board, added),
        "## Ranks",
        f"![{TITLE}]({added.figure})",
        _ranks(board),
        *(_attacks(board, data) for data in _labels("data")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure(lines: Sequence[Line]) -> str:
    """Return the plot of ranks as SVG."""
    return rank_plot(TITLE, Board(lines).ranking("worst_asr"), TITLES)


def costs(lines: Sequence[Line]) -> str:
    """Return the plots of worst ASR against costs as SVG."""
    return cost_plots(_offers(Board(lines)))


def _offers(board: Board) -> dict[str, list[Offer]]:
    """Return what the compared defenses and undefended cost and bring, by data set."""
    found: dict[str, list[Offer]] = {}
    for data in _labels("data"):
        compared = board.compared(data)
        for name in (*compared.defenses, UNDEFENDED) if compared.defenses else ():
            each = board.standing(name, data, compared.blocks)
            if each.mean_worst is not None and each.lost is not None and each.seconds is not None:
                offer = Offer(
                    TITLES.get(name, name), each.mean_worst, each.lost, each.seconds, each.blocks
                )
                found.setdefault(data, []).append(offer)
    return found


def _costs(board: Board, added: Added) -> str:
    offers = _offers(board)
    if not offers:
        return ""
    said = [
        f"- {data}, worst ASR against {title}, on the front: "
        + "; ".join(
            f"{each.defense} ({100 * each.worst_asr:.1f} %, {each.cost(kind):.3g})"
            for each in sorted(front(found, kind), key=lambda each: each.cost(kind))
        )
        + "."
        for data, found in offers.items()
        for kind, title in COSTS.items()
    ]
    return "\n\n".join(
        [
            "## What they cost",
            f"![{COST_TITLE}]({added.costs})",
            "Means over the blocks of the tables above. Filled dots are on the front: no other "
            "defense is as good in both and better in one. Seconds are the server's; what a "
            "defense asks of clients is not among them. Dots without a name had no room for it.",
            "\n".join(said),
        ]
    )


def _labels(axis: str, lines: Sequence[Line] = ()) -> list[str]:
    """Return the labels of an axis in the study, and then those that only lines have."""
    return list(dict.fromkeys(getattr(each, axis) for each in (*planned(), *lines)))


def _run(lines: Sequence[Line]) -> str:
    wanted = Counter((each.data, each.seed) for each in planned())
    shipped = {*planned()}
    done = Counter((line.data, line.seed) for line in lines if line.planned in shipped)
    rows = [
        [data, str(seed), f"{done[data, seed]:,} of {number:,}"]
        for (data, seed), number in wanted.items()
    ]
    commits = sorted({line.commit for line in lines})
    said = f"\n\nLines were written at commit {', '.join(commits)}." if commits else ""
    return f"## What was run\n\n{markdown(['data', 'seed', 'runs'], rows)}{said}"


def _standings(board: Board, data: str, added: Added) -> str:
    compared = board.compared(data)
    names = _labels("defense", board.lines)
    ran = {line.defense for line in board.lines if line.data == data}
    if not compared.defenses:
        return f"## {data}\n\nNothing can be compared yet."
    over = {name: board.standing(name, data, compared.blocks) for name in compared.defenses}
    works = any(board.works(block) for block in compared.blocks)
    order = sorted(
        (name for name in names if name in over),
        key=lambda name: (-over[name].held, over[name].worst or 0.0, over[name].lost or 0.0),
    )
    if not works:
        order = [name for name in names if name in over]
    bare = board.standing(UNDEFENDED, data, compared.blocks)
    rows = [_row(name, over[name], data, added) for name in order]
    rows.append(_row(UNDEFENDED, bare, data, added))
    parts = [f"## {data}", _over(compared, works=works), markdown(HEADS, rows)]
    apart = [name for name in names if name in ran - {*over, UNDEFENDED}]
    if apart:
        rows = [_row(name, board.standing(name, data), data, added) for name in apart]
        parts += [
            "Not compared, as they lack some of these blocks; their figures are of what they have:",
            markdown(HEADS, rows),
        ]
    parts += [f"{TITLES[name]}: {said}" for name, said in NOTES.items() if name in ran]
    return "\n\n".join(parts)


def _over(compared: Compared, *, works: bool) -> str:
    """Say over which blocks the defenses are compared."""
    blocks = [f"{TITLES.get(attack, attack)} (seed {seed})" for _, attack, seed in compared.blocks]
    number = f"{len(blocks)} block{'' if len(blocks) == 1 else 's'}"
    said = f"{len(compared.defenses)} defenses over {number}: {', '.join(blocks)}."
    if works:
        return said
    return (
        f"{said} The attack works undefended in none of them (in other seeds it may: the matrix "
        "below has the worst of all), so that nothing counts for what is held: the rows are in the "
        "order of the study."
    )


def _row(name: str, each: Standing, data: str, added: Added) -> list[str]:
    title = TITLES.get(name, name)
    return [
        f"*{title}, for reference*" if name == UNDEFENDED else title,
        f"{each.held} of {each.blocks}" if each.blocks else NONE,
        _percent(each.worst),
        _percent(each.lost),
        _percent(each.attackers),
        _percent(each.honest),
        NONE if each.seconds is None else f"{each.seconds:.3f}",
        f"`drop reproduce rivals {_options(name, each, added)}"
        f"--where 'data={data}' defense={name} "
        f"attack={','.join(each.attacks)} seed={','.join(map(str, each.seeds))}`",
    ]


def _options(defense: str, standing: Standing, added: Added) -> str:
    """Return the options that a row's command needs: none where the study has all of it."""
    own = defense not in _labels("defense") or {*standing.attacks} - {*_labels("attack")}
    return f"{added.options} " if own else ""


def _ranks(board: Board) -> str:
    asr, mta = board.ranking("worst_asr"), board.ranking("mta")
    return "\n".join(
        [
            f"- By worst ASR: {_said(asr)}.",
            f"- By MTA: {_said(mta)}.",
            "- p is that all rank alike, by Friedman's test as Iman and Davenport have it, and "
            "beside it by Friedman's own chi-square, which is the more careful with few blocks; "
            "two defenses differ by Nemenyi's test at 5 %. Only blocks that have all ranked "
            "defenses count. Blocks of one attack are not independent, so all are optimistic.",
        ]
    )


def _said(ranking: Ranking | None) -> str:
    if ranking is None:
        return "too few runs to rank yet"
    lowest = ", ".join(
        f"{TITLES.get(name, name)} {rank:.1f}"
        for name, rank in zip(ranking.methods[:5], ranking.ranks, strict=False)
    )
    left = ", ".join(TITLES.get(name, name) for name in ranking.left_out)
    return (
        f"{len(ranking.methods)} defenses over {ranking.blocks} blocks (critical difference "
        f"{ranking.critical:.2f} of at most {len(ranking.methods) - 1} ranks): "
        f"{ranking.said(TITLES)}. Friedman's chi-square has p = {ranking.chi_p:.2g}. The lowest "
        f"mean ranks: {lowest}"
        + (f". Left out, as too few blocks have them: {left}" if left else "")
    )


def _attacks(board: Board, data: str) -> str:
    attacks = [
        name
        for name in _labels("attack", board.lines)
        if any(board.works(block) for block in board.blocks if block[:2] == (data, name))
    ]
    rows = [
        [
            TITLES.get(defense, defense),
            *(_percent(board.cell(data, attack, defense)) for attack in attacks),
        ]
        for defense in _labels("defense", board.lines)
        if any(board.cell(data, attack, defense) is not None for attack in attacks)
    ]
    if not rows:
        return ""
    heads = ["worst ASR %", *(TITLES.get(attack, attack) for attack in attacks)]
    without = sorted(
        {line.attack for line in board.lines if line.data == data and line.defense == UNDEFENDED}
        - {*attacks}
    )
    said = f"\n\nWithout a backdoor undefended: {', '.join(without)}." if without else ""
    return f"## Attack by attack, {data}\n\n{markdown(heads, rows)}{said}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{100 * share:.1f}"
