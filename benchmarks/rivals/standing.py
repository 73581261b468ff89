"""Where every defense stands: over which attacks it holds, what it costs, how it ranks."""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from entity.report.ranks import Ranking, rank
from rivals.lines import Line

UNDEFENDED = "undefended"
WORKS, HOLDS = 0.5, 0.05
"""An attack works from this worst ASR undefended on; a defense holds up to that."""


@dataclass(frozen=True)
class Standing:
    """One defense over the blocks of one data set that it was run in."""

    blocks: int
    """Blocks whose attack works."""
    held: int
    """Those in which it held."""
    worst: float | None
    """Highest worst ASR of them."""
    lost: float | None
    """Mean MTA lost beside the undefended run of the block, over all blocks with one."""
    attackers: float | None
    """Mean share of the attackers' updates that it refused."""
    honest: float | None
    """Mean share of honest updates that it refused."""
    seconds: float | None
    """Mean seconds of the server a round; what it asks of clients is not among them."""
    attacks: tuple[str, ...]
    """That it was run under, in the order of the lines."""
    seeds: tuple[int, ...]


class Board:
    """The lines by block: one attack, data set and seed."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = list(lines)
        self.blocks: dict[tuple[str, str, int], dict[str, Line]] = defaultdict(dict)
        for line in self.lines:
            self.blocks[line.data, line.attack, line.seed][line.defense] = line

    def works(self, block: tuple[str, str, int]) -> bool:
        """Whether the attack of a block is known to work where nobody defends."""
        bare = self.blocks[block].get(UNDEFENDED)
        return bare is not None and bare.worst_asr is not None and bare.worst_asr >= WORKS

    def standing(self, defense: str, data: str) -> Standing:
        """Return where a defense stands on one data set."""
        mine = {b: found[defense] for b, found in self.blocks.items() if defense in found}
        mine = {block: line for block, line in mine.items() if block[0] == data}
        worst = [
            line.worst_asr
            for block, line in mine.items()
            if self.works(block) and line.worst_asr is not None
        ]
        lost = [
            bare.mta - line.mta
            for block, line in mine.items()
            if (bare := self.blocks[block].get(UNDEFENDED)) is not None
            and bare.mta is not None
            and line.mta is not None
        ]
        return Standing(
            len(worst),
            sum(each <= HOLDS for each in worst),
            max(worst, default=None),
            _mean(lost),
            _mean(line.tpr for line in mine.values()),
            _mean(line.fpr for line in mine.values()),
            _mean(line.aggregate for line in mine.values()),
            tuple(dict.fromkeys(attack for _, attack, _ in mine)),
            tuple(sorted({seed for _, _, seed in mine})),
        )

    def cell(self, data: str, attack: str, defense: str) -> float | None:
        """Return the highest worst ASR of a cell over its seeds; None where none counts."""
        found = [
            line.worst_asr
            for (on, by, seed), runs in self.blocks.items()
            if (on, by) == (data, attack) and self.works((on, by, seed))
            if (line := runs.get(defense)) is not None and line.worst_asr is not None
        ]
        return max(found, default=None)

    def ranking(self, metric: str, data: Sequence[str] | None = None) -> Ranking | None:
        """Rank the defenses by worst ASR, over the attacks that work, or by MTA, over all."""
        scores: dict[Hashable, dict[str, float]] = {}
        for block, runs in self.blocks.items():
            if (data and block[0] not in data) or (metric != "mta" and not self.works(block)):
                continue
            values = {name: getattr(line, metric) for name, line in runs.items()}
            scores[block] = {
                name: -value if metric == "mta" else value
                for name, value in values.items()
                if value is not None
            }
        return rank(scores)


def _mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
