"""The page docs/LEADERBOARD.md and its figure, made of the committed lines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from pages import markdown

from entity.report.ranks import Ranking
from entity.results.titles import TITLES
from rivals.lines import Line, planned
from rivals.rank_plot import rank_plot
from rivals.standing import HOLDS, UNDEFENDED, WORKS, Board, Standing

NONE = "\N{EN DASH}"
TITLE = "Mean ranks by worst ASR"

INTRODUCTION = f"""# Leaderboard

All defenses of the package against all attacks, and a client rule, local DP and server optimisers
beside them, on the federation of the front page: `mnist5k`, ten clients, four of them malicious,
all in every round, half of the victim class poisoned, 25 rounds; IID and Dirichlet 0.5.
`python benchmarks/leaderboard.py` makes this page of `docs/results/rivals.jsonl`; nothing here is
written by hand. To add to it:
`drop reproduce rivals --where defense=NAME`, then
`python benchmarks/leaderboard.py --runs runs/rivals`.

A block is one attack, data set and seed. An attack works where the undefended run's worst ASR, of
the rounds whose MTA is at least 90 % of the last one's, is at least {100 * WORKS:g} %. No other
block counts for what is held, for worst ASR and for ranks by it. A defense holds where its worst
ASR is at most {100 * HOLDS:g} %. MTA lost, who is refused and seconds are means of all blocks that
were run; MTA lost is beside the undefended run of the block, in points; below zero the defense
gains. All of it is one small federation: it says which defenses are worth a look, not which is best
for yours."""


@dataclass(frozen=True)
class Added:
    """Methods that stand on the page and not in the study."""

    options: str = ""
    """Of `drop reproduce`, with which it has them."""
    figure: str = "study/ranks.svg"
    """Where the figure is, seen from the page."""


def page(lines: Sequence[Line], added: Added | None = None) -> str:
    """Return the page; `added` says which methods are none of the study."""
    added = added or Added()
    board = Board(lines)
    parts = [
        INTRODUCTION,
        f"Methods were added by `drop reproduce rivals {added.options}`." if added.options else "",
        _run(lines),
        *(_standings(board, data, added) for data in _labels("data")),
        "## Ranks",
        f"![{TITLE}]({added.figure})",
        _ranks(board),
        *(_attacks(board, data) for data in _labels("data")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figure(lines: Sequence[Line]) -> str:
    """Return the plot of ranks as SVG."""
    return rank_plot(TITLE, Board(lines).ranking("worst_asr"), TITLES)


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
    refused = ["attackers refused %", "honest refused %"]
    heads = ["defense", "held", "worst ASR %", "MTA lost", *refused, "server s a round", "again"]
    found = {name: board.standing(name, data) for name in _labels("defense", board.lines)}
    ran = {name: each for name, each in found.items() if each.seconds is not None}
    if not ran:
        return f"## {data}\n\nNothing was run yet."
    order = sorted(
        ran,
        key=lambda name: (
            -(ran[name].held / ran[name].blocks if ran[name].blocks else -1.0),
            ran[name].worst or 0.0,
            ran[name].lost or 0.0,
        ),
    )
    rows = [
        [
            TITLES.get(name, name),
            f"{each.held} of {each.blocks}",
            _percent(each.worst),
            _percent(each.lost),
            _percent(each.attackers),
            _percent(each.honest),
            NONE if each.seconds is None else f"{each.seconds:.3f}",
            f"`drop reproduce rivals {_options(name, each, added)}"
            f"--where 'data={data}' defense={name} "
            f"attack={','.join(each.attacks)} seed={','.join(map(str, each.seeds))}`",
        ]
        for name, each in ((name, ran[name]) for name in order)
    ]
    return f"## {data}\n\n{markdown(heads, rows)}"


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
            "- p is that all rank alike, by Friedman's test as Iman and Davenport have it; two "
            "defenses differ by Nemenyi's test at 5 %. Only blocks that have all ranked defenses "
            "count. Blocks of one attack are not independent, so both are optimistic.",
        ]
    )


def _said(ranking: Ranking | None) -> str:
    if ranking is None:
        return "too few runs to rank yet"
    over = f"{len(ranking.methods)} defenses over {ranking.blocks} blocks"
    return f"{over}: {ranking.said(TITLES)}"


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
