"""The page docs/STUDY.md and its heat maps, made of what was planned and what came out."""

from collections.abc import Mapping, Sequence

from pages import markdown

from claim import budget, failures, findings, prose, ranking
from claim.design import CIFAR10, CONFIGURATIONS, CORE_SECONDS, NAMES, Labels, design
from claim.heat_map import Square, heat_map
from claim.results import Results, cells, missing
from claim.texts import NAMES as TITLES
from claim.texts import NONE, by_seed, counted, defenses, listed, percent, where
from entity.sweep.grid import matches
from entity.sweep.study import Band

MAPS = {
    "configurations": "Worst ASR in percent by learning configuration",
    "rates": "Worst ASR in percent at C4, by rate and share of malicious clients",
    "cifar10": "Worst ASR in percent, CIFAR-10 (JPEG), resnet8",
}


FIGURES = {"worst_asr": "worst ASR %", "mta": "MTA %"}
OF_TEN = {
    "worst_asr": "worst ASR %",
    "worst_round": "its round",
    "asr": "ASR after the last round %",
    "mta": "MTA %",
}
"""What tables have of a run, and its title."""


def page(results: Results) -> str:
    """Return the page."""
    parts = [
        "# The claim, here: at 5 % poisoned and 40 % malicious",
        prose.INTRODUCTION,
        findings.scope(results),
        "## What was planned",
        _planned(),
        _expected(results),
        "## What was run",
        _run(results),
        findings.outdated(results),
        "## Ten learning configurations",
        f"![{MAPS['configurations']}](study/configurations.svg)",
        _configurations(results),
        _said(
            findings.works(results),
            findings.in_all_ten(results, "drop"),
            findings.in_all_ten(results, "droplet"),
            findings.in_all_ten(results, "drop_plus"),
            findings.median_fails(results, ranking.papers_median()),
            findings.price(results, "drop"),
            findings.price(results, "droplet"),
            findings.price(results, "drop_plus"),
            findings.who_is_refused(results, "droplet"),
            findings.who_is_refused(results, "drop_plus"),
        ),
        failures.section(results),
        "## Rates and shares of malicious clients",
        f"![{MAPS['rates']}](study/rates.svg)",
        _rates(results),
        _said(*(findings.everywhere(results, each) for each in defenses(CONFIGURATIONS)[1:])),
        "## The paper's ranking beside ours",
        prose.RANKING,
        ranking.table(results),
        "\n".join(ranking.agreement(results)),
        _differences(results),
        "## CIFAR-10",
        _cifar10(results),
        "## Is it the budget?",
        budget.section(results),
        "## Limits",
        prose.LIMITS,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _planned() -> str:
    found, small = design(CONFIGURATIONS), design(CIFAR10)
    rows = [
        [
            name,
            *(
                found.fields("configuration", name)[field]
                for field in ("client.lr", "client.batch_size", "num_epochs", "rounds", "K")
            ),
            listed(
                dict.fromkeys(
                    where(CONFIGURATIONS, labels).split(" at ")[1]
                    for labels in cells(found, configuration=name, defense="undefended")
                    if labels[1] != "none"
                )
            ),
        ]
        for name in findings.TEN
    ]
    heads = ["configuration", "rate", "batch", "epochs", "rounds", "K", "poisoned/malicious"]
    beside = ", ".join(
        f"{name} ({small.fields('configuration', name)['client.lr']}, "
        f"{small.fields('configuration', name)['client.batch_size']}, "
        f"{small.fields('configuration', name)['num_epochs']})"
        for name in small.labels_of("configuration")
    )
    return (
        f"{markdown(heads, rows)}\n\n"
        f"{prose.PLAN} CIFAR-10 (JPEG) with `resnet8`: {beside} of table II (rate, batch, epochs), "
        "20 clients, 60 rounds of 5 with two attackers each, 5 %.\n\n"
        f"**Budget, set before**: {CORE_SECONDS:,} seconds of one core for both, the first seed of "
        "everything before the second. Commands: `drop reproduce configurations`, "
        "`configurations-cifar10` and `budget`."
    )


def _expected(results: Results) -> str:
    """Return the ranges that were written down before, and in how many cells they were met."""
    rows: list[list[str]] = []
    for name in (CONFIGURATIONS, CIFAR10):
        found = design(name)
        for each in found.study.expectations:
            chosen = [
                labels
                for labels in found.seeds
                if matches(dict(zip(found.axes, labels, strict=True)), each.cells)
            ]
            judged = [
                met
                for labels in chosen
                if (met := _met(results, name, labels, each.mta, each.worst_asr)) is not None
            ]
            void = sum(_counts_for_nobody(results, name, labels) for labels in chosen)
            said = "; ".join(
                listed(
                    {**TITLES, "none": "no attack"}.get(label, label.replace("%", " %"))
                    for label in labels
                )
                for axis, labels in each.cells.items()
                if not (axis == "rate" and len(labels) > 2)
            )
            rows.append(
                [
                    f"{'CIFAR-10' if name == CIFAR10 else 'MNIST'}: {said}",
                    NONE if each.mta is None else str(each.mta),
                    NONE if each.worst_asr is None else str(each.worst_asr),
                    f"{sum(judged)} of {len(judged)}" if judged else NONE,
                    str(void),
                    str(len(chosen) - len(judged) - void),
                ]
            )
    heads = ["expected of", "MTA %", "worst ASR %", "met in cells", "void", "not run"]
    return f"{prose.EXPECTED}\n\n{markdown(heads, rows)}\n\n{prose.JUDGED}"


def _counts_for_nobody(results: Results, name: str, labels: Labels) -> bool:
    """Whether a cell is void; an undefended one, in which the attack fails, is missed instead."""
    found = design(name)
    rule = found.study.void
    is_reference = rule and dict(zip(found.axes, labels, strict=True))[rule.axis] == rule.label
    return results.void(name, labels) and not is_reference


def _met(
    results: Results, name: str, labels: Labels, mta: Band | None, worst: Band | None
) -> bool | None:
    """Say whether a cell is as expected; None where it says nothing, as a void one does."""
    ends, asr = results.mta(name, labels), results.worst(name, labels)
    if results.void(name, labels):
        return None if _counts_for_nobody(results, name, labels) else False
    if ends is None or (worst is not None and asr is None):
        return None
    return (mta is None or ends in mta) and (worst is None or (asr is not None and asr in worst))


def _run(results: Results) -> str:
    counts = missing(results)
    rows = [
        [name, str(seed), f"{done} of {of}", str(of - done)]
        for (name, seed), (done, of) in counts.items()
    ]
    both = [line for line in results.lines if line.study != NAMES[-1]]
    commits = sorted({line.commit for line in results.lines})
    used = (
        f"The runs of the ten configurations and of CIFAR-10 took {findings.core_hours(both):.1f} "
        f"core hours, where {CORE_SECONDS / 3600:.0f} were planned before any was run, by the "
        f"clock of one thread, however busy the machine was. "
        f"Lines were written at commit {listed(commits)}."
        if results.lines
        else "Nothing was run yet."
    )
    return f"{markdown(['study', 'seed', 'runs done', 'missing'], rows)}\n\n{used}"


def _said(*sentences: str) -> str:
    return "\n".join(f"- {each}" for each in sentences if each)


def _table(
    results: Results,
    study: str,
    columns: Sequence[tuple[str, list[Labels]]],
    least: int = 1,
    metrics: Mapping[str, str] = FIGURES,
) -> str:
    """Return some figures of the defenses that are planned in so many columns, a table each."""
    parts: list[str] = []
    for metric, title in metrics.items():
        rows = [
            [
                TITLES[defense],
                *(by_seed(results, study, labels[row], metric) for _, labels in columns),
            ]
            for row, defense in enumerate(defenses(study))
        ]
        rows = [row for row in rows if sum(map(bool, row[1:])) >= least]
        parts.append(markdown([title, *(name for name, _ in columns)], rows))
    return "\n\n".join(parts)


def _columns_of_configurations() -> list[tuple[str, list[Labels]]]:
    """Return the ten configurations, each with the cell of every defense."""
    columns: list[tuple[str, list[Labels]]] = []
    for name, (_, rate, mcr, _) in zip(findings.TEN, findings.ten("undefended"), strict=True):
        columns.append((name, [(name, rate, mcr, each) for each in defenses(CONFIGURATIONS)]))
    return columns


def _columns_of_rates() -> list[tuple[str, list[Labels]]]:
    found = design(CONFIGURATIONS)
    chosen = [
        labels[1:3]
        for labels in cells(found, configuration="C4", defense="undefended")
        if labels[1] != "none"
    ]
    chosen.sort(key=lambda each: (each[1], float(each[0][:-1])))
    return [
        (f"{rate[:-1]} %/{mcr[:-1]} %", [("C4", rate, mcr, d) for d in defenses(CONFIGURATIONS)])
        for rate, mcr in chosen
    ]


def _columns_of_cifar10() -> list[tuple[str, list[Labels]]]:
    names = design(CIFAR10).labels_of("configuration")
    return [(name, [(name, each) for each in defenses(CIFAR10)]) for name in names]


def _configurations(results: Results) -> str:
    wide = _table(results, CONFIGURATIONS, _columns_of_configurations(), 2, OF_TEN)
    return f"Each seed for itself; all at 5 %/40 %. In brackets: void.\n\n{wide}"


def _rates(results: Results) -> str:
    clean = [("C4", "none", "20%", each) for each in ("undefended", "drop")]
    ends = [percent(results.mta(CONFIGURATIONS, labels)) for labels in clean]
    floor = next((line.worst_asr for line in results.of(CONFIGURATIONS, clean[0])), None)
    return (
        f"{_table(results, CONFIGURATIONS, _columns_of_rates())}\n\n"
        f"Without attack, at C4: MTA {ends[0]} % undefended and {ends[1]} % with DROP; the floor, "
        f"the worst ASR of the undefended run that nobody attacks, is {percent(floor)} %."
    )


def _cifar10(results: Results) -> str:
    if not _of_cifar10(results):
        return f"Nothing was run yet: {counted(len(design(CIFAR10).seeds), 'run')} are planned."
    said: list[str] = []
    for defense in defenses(CIFAR10)[1:]:
        tally = findings.Tally.of(results, CIFAR10, list(cells(design(CIFAR10), defense=defense)))
        said.append(
            f"{TITLES[defense]}: worst ASR "
            + listed(f"{percent(value)} % in {labels[0]}" for labels, value in tally.known)
            + f"{tally.unknown()}."
            if tally.known
            else f"{TITLES[defense]}: nothing is known yet{tally.unknown()}."
        )
    drawn = f"![{MAPS['cifar10']}](study/cifar10.svg)"
    return f"{drawn}\n\n{_table(results, CIFAR10, _columns_of_cifar10())}\n\n{_said(*said)}"


def _of_cifar10(results: Results) -> bool:
    return any(line.study == CIFAR10 for line in results.lines)


def _differences(results: Results) -> str:
    differing = ranking.differences(results)
    if not differing:
        known = any(point.both(results) for point in ranking.POINTS)
        return "No defense is on the other side of 50 % here." if known else ""
    return "\n\n".join(
        ["On the other side of 50 % here:", "\n".join(differing), prose.EXPLANATIONS]
    )


def maps(results: Results) -> dict[str, str]:
    """Return the heat maps as SVG, by name; none of a study that has no runs yet."""
    small = (
        {"cifar10": _map(results, "cifar10", CIFAR10, _columns_of_cifar10())}
        if _of_cifar10(results)
        else {}
    )
    return {
        "configurations": _map(
            results, "configurations", CONFIGURATIONS, _columns_of_configurations(), 2
        ),
        "rates": _map(results, "rates", CONFIGURATIONS, _columns_of_rates()),
        **small,
    }


def _map(
    results: Results,
    name: str,
    study: str,
    columns: Sequence[tuple[str, list[Labels]]],
    least: int = 1,
) -> str:
    rows: list[tuple[str, list[Square]]] = []
    for row, defense in enumerate(defenses(study)):
        squares = [_square(results, study, labels[row]) for _, labels in columns]
        if sum(square.state != "not planned" for square in squares) >= least:
            rows.append((TITLES[defense], squares))
    return heat_map(MAPS[name], [title.replace("/", "\n") for title, _ in columns], rows)


def _square(results: Results, study: str, labels: Labels) -> Square:
    if labels not in design(study).seeds:
        return Square(state="not planned")
    if results.void(study, labels):
        return Square(state="void")
    worst = results.worst(study, labels)
    return Square(state="missing") if worst is None else Square(worst)
