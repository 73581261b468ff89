"""The table of a paper: MTA, ASR and worst ASR by two sets of fields, mean ± spread over seeds.

A cell holds the finished runs that differ by their seed alone. In every column the best mean is
bold, and rows that differ from it significantly are marked, by the test of `significance.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, groupby
from typing import Literal

from entity.record.consistency import level_in_words
from entity.record.window import remark, span
from entity.report.axes import Axis
from entity.report.entries import Entry
from entity.report.paper_layout import BadTable, Layout, lay_out, name_of
from entity.report.seed_bands import by_seed
from entity.report.significance import FEWEST, LEVEL, differ_alike, holm, paired_p
from entity.results.tables import Spread
from entity.results.titles import titled

Metric = Literal["mta", "asr", "worst_asr"]
METRICS: tuple[Metric, ...] = ("mta", "asr", "worst_asr")
TITLES: Mapping[Metric, str] = {"mta": "MTA", "asr": "ASR", "worst_asr": "worst ASR"}


@dataclass(frozen=True)
class Cell:
    """One number of the table, with the values of its seeds."""

    seeds: Mapping[str, float]
    """The value of each seed, a share of one."""
    best: bool
    """Whether its mean, as written, is the best of its column."""
    p: float | None
    """Holm-adjusted p of its difference from the reference; None where none was tested."""
    alike: bool = False
    """Whether it differs from the reference by the same in every seed, so that none was."""

    @property
    def spread(self) -> Spread:
        """Mean and sample standard deviation over the seeds."""
        spread = Spread.of(list(self.seeds.values()))
        assert spread is not None
        return spread

    @property
    def numbers(self) -> tuple[str, str]:
        """Mean and standard deviation in percent as a table shows them, "" for no deviation."""
        mean, sd = self.spread.mean, self.spread.sd
        return _read(mean), "" if sd is None else _read(sd)

    @property
    def marked(self) -> bool:
        """Whether it differs significantly from the reference."""
        return self.p is not None and self.p < LEVEL


@dataclass(frozen=True)
class Column:
    """A column: a value of every field across the top, and the metric."""

    values: tuple[str, ...]
    metric: Metric

    def labels(self, layout: Layout) -> list[str]:
        """Write its values so that they explain themselves."""
        return [axis.label(value) for axis, value in zip(layout.columns, self.values, strict=True)]


@dataclass(frozen=True)
class PaperTable:
    """Cells by row and column; None where no finished run belongs."""

    layout: Layout
    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    """The values of the fields down the side."""
    cells: tuple[tuple[Cell | None, ...], ...]
    against: str | None
    """The row that all others are compared with; None is the best of each column."""
    left_out: int
    """Runs that are not finished."""
    floors: tuple[float, ...] = ()
    """ASR without attack, of each run of which it is known."""
    span: str = ""
    """Which rounds the means are of."""
    rising: str = ""
    """Runs whose curves still rise over these rounds, in a sentence."""
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of methods that go before the published ones."""
    level: str = level_in_words(None)
    """MTA of the rounds whose worst ASR counts, in words."""
    repeats: int = 0
    """Runs of a seed that a cell has already."""

    def titled(self, words: str) -> str:
        """Return words with the methods in them by their published names."""
        return titled(words, self.names)

    @property
    def seeds(self) -> tuple[int, int]:
        """Fewest and most seeds of a cell; (0, 0) without cells."""
        counts = [len(cell.seeds) for row in self.cells for cell in row if cell]
        return min(counts, default=0), max(counts, default=0)

    @property
    def tested(self) -> bool:
        """Whether any two rows could be compared."""
        return any(cell is not None and cell.p is not None for row in self.cells for cell in row)

    def spans(self) -> list[list[tuple[str, int]]]:
        """Return a line of headings for each field across the top: (words, columns they span)."""
        lines: list[list[tuple[str, int]]] = []
        for level, axis in enumerate(self.layout.columns, start=1):
            starts = [column.values[:level] for column in self.columns]
            lines.append(
                [(axis.label(each[-1]), len(list(same))) for each, same in groupby(starts)]
            )
        return lines

    def only(self, metric: Metric) -> "PaperTable":
        """Return the columns of one metric."""
        kept = [place for place, column in enumerate(self.columns) if column.metric == metric]
        return replace(
            self,
            columns=tuple(self.columns[place] for place in kept),
            cells=tuple(tuple(row[place] for place in kept) for row in self.cells),
        )

    def note(self) -> str:
        """Say what a number is, what is bold, and what was tested, in plain ASCII."""
        low, high = self.seeds
        if not high:
            return "No run is finished." if self.left_out else "There are no runs."
        counted = f"n = {low}" if low == high else f"n = {low} to {high}"
        parts = [
            f"Percent, of the {self.span}; mean and sample standard deviation "
            f"(divisor n - 1) over seeds, {counted}."
            if high > 1
            else f"Percent, mean of the {self.span}; one seed, so there is no spread."
        ]
        if self.rising:
            parts.append(self.rising)
        if any(column.metric == "worst_asr" for column in self.columns):
            parts.append(
                f"Worst ASR: the highest of all rounds whose MTA is at least {self.level}."
            )
        if self.floors:
            low, high = (f"{100 * end(self.floors):.1f}" for end in (min, max))
            span = low if low == high else f"{low} to {high}"
            parts.append(f"Without attack the ASR of these runs is {span}.")
        if len(self.rows) > 1:
            parts.append("Bold: highest MTA, lowest ASR of a column.")
            parts.append(self._test())
        if self.repeats:
            runs = "run repeats" if self.repeats == 1 else "runs repeat"
            parts.append(
                f"{self.repeats} {runs} a seed of a cell: a seed counts once, by its mean."
            )
        if self.left_out:
            runs = "run is" if self.left_out == 1 else "runs are"
            parts.append(f"{self.left_out} unfinished {runs} left out.")
        return " ".join(part for part in parts if part)

    def _test(self) -> str:
        alike = any(cell is not None and cell.alike for row in self.cells for cell in row)
        if not self.tested and not alike:
            return f"No test was made: it takes {FEWEST} shared seeds."
        other, family = (
            ("the bold one", "all pairs of a column")
            if self.against is None
            else (self.titled(self.against), "the comparisons of a column")
        )
        said = [
            f"A dagger marks what differs from {other}: two-sided paired t-test over shared seeds, "
            f"p < {LEVEL:g} after Holm's correction for {family}."
        ]
        if alike:
            said.append(
                f"A double dagger marks what differs from {other} by the same in all shared seeds, "
                "which leaves no spread to test with."
            )
        return " ".join(said if self.tested else said[1:])


@dataclass(frozen=True)
class TableRequest:
    """The fields of a report's table as the user names them; see `lay_out` and `tabulate`."""

    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    against: str | None = None
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of methods that go before the published ones of `results.titles`."""

    def table(self, entries: Sequence[Entry]) -> PaperTable:
        """Make the table of these runs."""
        return tabulate(entries, lay_out(entries, self.rows, self.columns), self.against)


def tabulate(entries: Sequence[Entry], layout: Layout, against: str | None = None) -> PaperTable:
    """Fill the table.

    Parameters
    ----------
    entries
        Runs; those that are not finished are left out and counted.
    layout
        Its fields.
    against
        The row, by its words, that the others are compared with. None compares with the best of
        each column, and corrects for all pairs of it, as the best was picked by the same numbers.

    Raises
    ------
    BadTable
        If no row is called `against`.
    """
    whole = [entry for entry in entries if entry.run.complete]
    rows = _order(whole, layout.rows)
    tops = _order(whole, layout.columns)
    columns = tuple(Column(top, metric) for top in tops for metric in METRICS)
    names = [name_of(row, layout) for row in rows]
    overrides = dict(entries[0].names) if entries else {}
    published = {titled(name, overrides): name for name in names}
    against = published.get(against or "", against)
    if against is not None and against not in names:
        known = f"rows are {'; '.join(names)}" if names else "without a finished run there is none"
        raise BadTable(f'against: no row is called "{against}"; {known}.')
    cells_of: dict[tuple[tuple[str, ...], tuple[str, ...]], list[Entry]] = {}
    for entry in whole:
        place = _words(entry, layout.rows), _words(entry, layout.columns)
        cells_of.setdefault(place, []).append(entry)
    found = {
        (row, Column(top, metric)): seeds
        for (row, top), entries_of in cells_of.items()
        for metric in METRICS
        if (seeds := by_seed(entries_of, metric))
    }
    by_column = [
        _judge([found.get((row, column)) for row in rows], column.metric, _place(names, against))
        for column in columns
    ]
    cells = tuple(zip(*by_column, strict=True)) if columns else ()
    known = tuple(e.outcome.floor for e in whole if e.outcome.floor is not None)
    windows = [(entry.label, entry.outcome.window) for entry in whole]
    return PaperTable(
        layout,
        columns,
        tuple(rows),
        cells,
        against,
        len(entries) - len(whole),
        known,
        span(window for _, window in windows),
        remark(windows),
        overrides,
        entries[0].outcome.level if entries else level_in_words(None),
        sum(len(each) - len({e.seed for e in each}) for each in cells_of.values()),
    )


def _place(names: Sequence[str], against: str | None) -> int | None:
    return None if against is None else names.index(against)


def _words(entry: Entry, axes: Sequence[Axis]) -> tuple[str, ...]:
    return tuple(axis.written(entry.run) for axis in axes)


def _order(entries: Sequence[Entry], axes: Sequence[Axis]) -> list[tuple[str, ...]]:
    """List the values that occur: words as they come, numbers by size."""
    first: dict[str, int] = {}
    keys: dict[tuple[str, ...], tuple[tuple[float, int], ...]] = {}
    for entry in entries:
        key: list[tuple[float, int]] = []
        for axis in axes:
            value, word = axis.value(entry.run), axis.written(entry.run)
            size = float(value) if isinstance(value, int | float) else 0.0
            key.append((size, first.setdefault(word, len(first))))
        keys.setdefault(_words(entry, axes), tuple(key))
    return sorted(keys, key=keys.__getitem__)


def _judge(
    column: Sequence[Mapping[str, float] | None], metric: Metric, reference: int | None
) -> list[Cell | None]:
    """Find the best of a column and compare."""
    means = {place: sum(seeds.values()) / len(seeds) for place, seeds in enumerate(column) if seeds}
    if not means:
        return [None] * len(column)
    better = max if metric == "mta" else min
    best = better(means, key=means.__getitem__)
    pairs = [
        (one, two)
        for one, two in combinations(means, 2)
        if reference is None or reference in (one, two)
    ]
    p_values = {
        pair: p
        for pair in pairs
        if (p := paired_p(column[pair[0]] or {}, column[pair[1]] or {})) is not None
    }
    # Pairs that cannot be tested count in the family, so that the others are not marked the sooner.
    alike = {pair for pair in pairs if differ_alike(column[pair[0]] or {}, column[pair[1]] or {})}
    family = {**p_values, **dict.fromkeys(alike, 1.0)}
    adjusted = dict(zip(family, holm(list(family.values())), strict=True))
    other = best if reference is None else reference
    return [
        Cell(
            seeds,
            best=len(means) > 1 and _read(means[place]) == _read(means[best]),
            p=None if (pair := _pair(place, other)) in alike else adjusted.get(pair),
            alike=pair in alike,
        )
        if seeds
        else None
        for place, seeds in enumerate(column)
    ]


def _pair(one: int, two: int) -> tuple[int, int]:
    return min(one, two), max(one, two)


def _read(mean: float) -> str:
    """Write a mean as the table shows it: what reads alike is bold alike."""
    return f"{100 * mean:.1f}"
