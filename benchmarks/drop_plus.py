"""Put the tables of docs/DROP_PLUS.md together, from the lines of its studies.

    python benchmarks/drop_plus.py

A run counts if it is of the method as it is now, or as it was before its last revisions: each row
says of which. The undefended run beside it has the same seed.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from claim import lines as claimed
from claim.design import CONFIGURATIONS
from claim.findings import ten
from claim.results import Results
from pages import ROOT, markdown, put_section
from run_study import Key, config_of, experiment_of, read_lines
from studies import STUDIES, Cell

from entity.config.schema import ConfigError
from entity.experiment import settled
from entity.setup.resolve import identity

PAGE = ROOT / "docs" / "DROP_PLUS.md"
PLUS, BARE = "drop_plus", "undefended"
FEDERATIONS = ("main", "stealthy_plus", "cifar10_plus", "skew", "triggers", "learned", "adaptive")
NAMES = {
    "main": "front page",
    "cifar10_plus": "CIFAR-10 (JPEG), `resnet8`",
    "stealthy_plus": "few poisoned images (`mnist5k/stealthy`)",
}
"""Studies of one federation each; the others' labels are names enough."""

Line = dict[str, Any]


def known(name: str) -> dict[Key, Line]:
    """Return the lines of a study that are of its experiments, by whatever revision of a method.

    On data that are not here (DROP_DATA) they are taken as they are.
    """
    lines, study = read_lines(ROOT / "docs" / "results" / f"{name}.jsonl"), STUDIES[name]
    found = dict[Key, Line]()
    for cell, seed in product(study.cells, study.seeds):
        line = lines.get((cell.label, seed))
        if line is not None and is_of(line, cell, seed):
            found[cell.label, seed] = line
    return found


def is_of(line: Line, cell: Cell, seed: int) -> bool:
    """Whether a line is of a cell with a seed, but for the code of its methods."""
    try:
        config = settled(config_of(cell, seed))
    except ConfigError:  # there are no such data
        return True
    if "experiment" in line:
        return line["experiment"] == experiment_of(config)
    return line["config_hash"] == identity(config)


def revisions(of: Iterable[int | None]) -> str:
    """Write of which revisions of its defense some runs are; "-" where no line says it."""
    return ", ".join(map(str, sorted({each for each in of if each is not None}))) or "-"


def percent(lines: Sequence[Line], metric: str, over: Any) -> str:
    """Write the mean or the highest of a metric over runs, in percent.

    Lines of earlier versions have no worst ASR; the highest of their last rounds is given for it.
    """
    return written([line.get(metric, line["asr_max"]) for line in lines], over)


def written(values: Sequence[float | None], over: Any) -> str:
    """Write the mean or the highest of some shares, in percent; "-" where there is none."""
    known = [value for value in values if value is not None]
    return f"{100 * over(known):.1f}" if known else "-"


def federations() -> Iterator[list[str]]:
    """Yield a row for each federation with runs of DROP+ and undefended ones of the same seeds."""
    for name in FEDERATIONS:
        lines = known(name)
        for label in dict.fromkeys(label for label, _ in lines if label[-1] == PLUS):
            twin = (*label[:-1], BARE)
            seeds = [seed for each, seed in lines if each == label and (twin, seed) in lines]
            if not seeds:
                continue
            plus, bare = ([lines[each, seed] for seed in seeds] for each in (label, twin))
            title = NAMES.get(name) or ", ".join(filter(None, label[:-1]))
            row = [title, str(len(seeds)), _works_in(bare)]
            for runs in (bare, plus):
                row += [percent(runs, "mta", fmean), percent(runs, "asr_worst", max)]
            row += [percent(plus, "tpr", fmean), percent(plus, "fpr", fmean)]
            row.append(written([line.get("fpr_most") for line in plus], max))
            yield [*row, revisions(line.get("revision") for line in plus)]


def _works_in(undefended: Sequence[Line]) -> str:
    """Return in how many seeds the attack works: worst ASR of at least one half undefended."""
    worst = [line.get("asr_worst", line["asr_max"]) for line in undefended]
    return str(sum(asr is not None and asr >= 0.5 for asr in worst))


def configurations(results: Results) -> Iterator[list[str]]:
    """Yield a row for each of the ten learning configurations in which the attack works."""
    defenses = (BARE, "droplet", "drop", PLUS)
    for cells in zip(*(ten(defense) for defense in defenses), strict=True):
        if not (runs := results.counted(CONFIGURATIONS, cells[-1])):
            continue
        row, seeds = [cells[0][0], str(len(runs))], {run.seed for run in runs}
        for labels in cells:
            twins = [run for run in results.of(CONFIGURATIONS, labels) if run.seed in seeds]
            row.append(written([run.mta for run in twins], fmean))
            row.append(written([run.worst_asr for run in twins], max))
        row.append(written([run.tpr for run in runs], fmean))
        row.append(written([run.fpr for run in runs], fmean))
        yield [*row, revisions(run.revision for run in runs)]


def classes() -> Iterator[list[str]]:
    """Yield a row for each federation with runs of all three, of the same seeds."""
    lines = known("classes")
    for data in dict.fromkeys(label[0] for label, _ in lines):
        labels = [(data, defense) for defense in (BARE, PLUS, f"{PLUS}, classes")]
        seeds = [s for s in STUDIES["classes"].seeds if all((each, s) in lines for each in labels)]
        if not seeds:
            continue
        row, used = [data, str(len(seeds)), _works_in([lines[labels[0], s] for s in seeds])], []
        for label in labels:
            runs = [lines[label, seed] for seed in seeds]
            used += [line.get("revision") for line in runs if label[1] != BARE]
            row += [percent(runs, "mta", fmean), percent(runs, "asr_worst", max)]
            if label[1] != BARE:
                row += [", ".join(percent([run], "asr_worst", max) for run in runs)]
                row += [percent(runs, "fpr", fmean)]
        yield [*row, revisions(used)]


def settings() -> Iterator[list[str]]:
    """Yield a row for each attack: its name in the tables, and the fields that make it."""
    for name in ("triggers", "learned", "adaptive"):
        for cell in STUDIES[name].cells:
            if cell.label[-1] == PLUS:
                given = [f"`{field}={value}`" for field, value in cell.overrides]
                fields = [each for each in given if not each.startswith("`rounds=")]
                yield [", ".join(filter(None, cell.label[:-1])), ", ".join(fields)]


def parts(name: str) -> Iterator[list[str]]:
    """Yield a row for each variant of the method that has runs, of one of its two ablations."""
    lines = known(name)
    for label in dict.fromkeys(label for label, _ in lines):
        runs = [line for (each, _), line in lines.items() if each == label]
        shares = [percent(runs, metric, fmean) for metric in ("tpr", "fpr")]
        figures = [percent(runs, "mta", fmean), percent(runs, "asr_worst", max), *shares]
        own = () if BARE in label else (run.get("revision") for run in runs)
        yield [*label, str(len(runs)), *figures, revisions(own)]


def main() -> int:
    """Write the tables."""
    refused = ["attackers refused %", "honest refused %", "revision"]
    seeds = ["seeds", "attack works in"]
    heads = ["federation", *seeds, "undefended: MTA %", "worst ASR %", "DROP+: MTA %"]
    heads += ["worst ASR %", *refused[:2], "most of one client %", refused[-1]]
    put_section(PAGE, "federations", markdown(heads, [*federations()]))
    heads = ["configuration", "seeds"]
    for title in ("undefended", "DROPlet", "DROP", "DROP+"):
        heads += [f"{title}: MTA %", "worst ASR %"]
    rows = [*configurations(Results(claimed.read_lines()))]
    put_section(PAGE, "configurations", markdown([*heads, *refused], rows))
    heads = ["data", *seeds, "undefended: MTA %", "worst ASR %"]
    for title in ("DROP+", "with `classes`"):
        heads += [f"{title}: MTA %", "worst ASR %", "of each seed", refused[1]]
    heads.append(refused[-1])
    rows = [*classes()]
    put_section(PAGE, "classes", markdown(heads, rows) if rows else "Nothing was run yet.")
    put_section(PAGE, "settings", markdown(["attack", "fields"], [*settings()]))
    heads = ["data", "DROP+", "seeds", "MTA %", "worst ASR %", *refused]
    for name in ("parts", "looks"):
        rows = [*parts(name)]
        put_section(PAGE, name, markdown(heads, rows) if rows else "Nothing was run yet.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
