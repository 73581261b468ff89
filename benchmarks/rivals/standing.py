"""Where every defense stands: over which attacks it holds, what it costs, how it ranks."""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from entity.report.ranks import Ranking, rank
from rivals.lines import Line

UNDEFENDED = "undefended"
WORKS, HOLDS = 0.5, 0.05
"""An attack works from this worst ASR undefended on; a defense holds up to that."""


Block = tuple[str, str, int]
"""Data set, attack and seed."""


@dataclass(frozen=True)
class Compared:
    """The defenses that are compared on one data set, and the blocks that all of them have."""

    defenses: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True)
class Standing:
    """One defense over some blocks."""

    blocks: int
    """Blocks whose attack works."""
    held: int
    """Those in which it held."""
    worst: float | None
    """Highest worst ASR of them."""
    mean_worst: float | None
    """Mean worst ASR of them."""
    lost: float | None
    """Mean MTA lost beside the undefended run of the block, over the blocks with one."""
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
        self.blocks: dict[Block, dict[str, Line]] = defaultdict(dict)
        for line in self.lines:
            self.blocks[line.data, line.attack, line.seed][line.defense] = line

    def works(self, block: Block) -> bool:
        """Whether the attack of a block is known to work where nobody defends."""
        bare = self.blocks[block].get(UNDEFENDED)
        return bare is not None and bare.worst_asr is not None and bare.worst_asr >= WORKS

    def compared(self, data: str) -> Compared:
        """Return which defenses are compared on a data set, and over which blocks.

        Of the defenses that most blocks have as many are compared as make the largest whole table.
        Blocks whose attack works count; only where there are none the others do. Undefended is in
        all, and is no defense.
        """
        known = [b for b, runs in self.blocks.items() if b[0] == data and UNDEFENDED in runs]
        counting = [block for block in known if self.works(block)]
        tables = self._tables(counting) or self._tables(known)
        return max(
            tables,
            key=lambda each: (len(each.defenses) * len(each.blocks), len(each.blocks)),
            default=Compared(),
        )

    def _tables(self, blocks: Sequence[Block]) -> list[Compared]:
        """Return the whole tables of defenses by blocks, by how many blocks a defense has."""
        seen = Counter(name for block in blocks for name in self.blocks[block])
        del seen[UNDEFENDED]
        tables: list[Compared] = []
        for least in sorted({*seen.values()}):
            names = tuple(name for name in seen if seen[name] >= least)
            whole = tuple(block for block in blocks if {*names} <= self.blocks[block].keys())
            if whole:
                tables.append(Compared(names, whole))
        return tables

    def standing(self, defense: str, data: str, blocks: Sequence[Block] | None = None) -> Standing:
        """Return where a defense stands on one data set: in some blocks, or in all that it has."""
        mine = {b: found[defense] for b, found in self.blocks.items() if defense in found}
        mine = {
            block: line
            for block, line in mine.items()
            if block[0] == data and (blocks is None or block in blocks)
        }
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
            _mean(worst),
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
