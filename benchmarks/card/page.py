"""The section of docs/PERFORMANCE.md that a ledger comes to."""

from collections.abc import Sequence

from pages import markdown

from card.cells import PAPER
from card.ledger import Ledger, Line

NOT_REACHED = ", no distillation was reached"


def undistilled(cell: Line) -> bool:
    """Say whether a cell whose defense distils stopped before its first distillation."""
    return bool(cell.get("distils")) and cell.get("distilled") == 0


def latest(lines: Sequence[Line], *names: str) -> list[Line]:
    """Return the last line of each kind, in the order in which the kinds first came.

    Parameters
    ----------
    lines
        In the order in which they were written.
    names
        Fields that say what kind a line is.
    """
    found: dict[tuple[object, ...], Line] = {}
    for line in lines:
        found[tuple(line.get(name) for name in names)] = line
    return list(found.values())


def section(ledger: Ledger) -> str:
    """Return the Markdown of what a ledger holds; parts that were not measured are named."""
    parts = [
        "## On a graphics card",
        _environment(ledger.lines("environment")),
        _checks(latest(ledger.lines("checks"), "check")),
        _speed(latest(ledger.lines("speed"), "batch", "precision")),
        _rounds(latest(ledger.lines("round"), "way")),
        _distillation(latest(ledger.lines("distillation"), "way")),
        _cells(latest(ledger.lines("cells"), "cell", "half")),
        _gaps(latest(ledger.lines("ended"), "name")),
    ]
    return "\n\n".join(part for part in parts if part)


def _environment(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    last = lines[-1]
    return (
        f"**{last['card']}**, {last['memory']:.0f} GiB, driver {last['driver']}; {last['cores']} "
        f"cores, PyTorch {last['torch']}, CUDA {last['cuda']}, cuDNN {last['cudnn']}, "
        f"Python {last['python']}. Commit {last['commit']}, {last['date']}. Data: {last['data']}."
        " By `python benchmarks/gpu.py`."
    )


def _checks(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    rows = [
        [
            line["check"],
            f"{line['value']:.2g}" if line.get("looked_for", True) else "-",
            f"{line['most']:g} {line['unit']}",
            _holds(line) + (f" ({line['remark']})" if line["remark"] else ""),
        ]
        for line in lines
    ]
    looked_for = [line for line in lines if line.get("looked_for", True)]
    held = sum(line["passed"] for line in looked_for)
    head = f"### What must hold: {held} of {len(looked_for)} do"
    if left := len(lines) - len(looked_for):
        head += f", {left} not looked for"
    return f"{head}\n\n" + markdown(["check", "found", "at most", "holds"], rows)


def _holds(line: Line) -> str:
    if not line.get("looked_for", True):
        return "not looked for"
    return "yes" if line["passed"] else "**no**"


def _speed(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    rows = [
        [
            str(line["batch"]),
            line["precision"],
            f"{line['ours']:,.0f}",
            f"{line['bare']:,.0f}",
            f"**{line['share']:.0%}**",
            "-" if line["replayed"] is None else f"{line['replayed']:,.0f}",
            f"{line['limit']:,.0f}",
            f"{line['ours'] / line['limit']:.0%}",
        ]
        for line in lines
    ]
    heads = ["batch", "precision", "samples a second", "bare loop", "of the bare loop"]
    heads += ["as a CUDA graph", "the card's limit", "of the limit"]
    return (
        f"### Samples a second of `{lines[0]['model']}`\n\n"
        "Local training on the inline engine, augmented, models in and out included. The bare loop "
        "takes the same optimiser steps on batches that lie ready on the card; as a CUDA graph, a "
        "step is captured once and replayed. The limit is the "
        "rate of one large square matrix product in the same precision, divided by the "
        "multiplications and additions of a sample's forward and backward pass: nothing can be "
        "faster, and no network of small images comes near.\n\n" + markdown(heads, rows)
    )


def _rounds(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    rows = [
        [
            line["way"],
            str(line["rounds"]),
            f"{line['first']:.1f}",
            f"**{line['seconds']:.2f}**",
            *(f"{line['phases'][name]:.2f}" for name in ("train", "aggregate", "evaluate")),
            f"{line['minutes_of_200']:.1f}",
        ]
        for line in lines
    ]
    heads = ["way", "rounds", "start and first, s", "a later round, s", "training", "aggregation"]
    heads += ["evaluation", "200 rounds, min (extrapolated)"]
    return "### A round of `cifar10/undefended.json`\n\n" + markdown(heads, rows)


def _distillation(lines: Sequence[Line]) -> str:
    if not lines:
        return ""
    rows = [
        [
            line["way"],
            f"{line['iterations']} of {line['of']}",
            f"{line['seconds']:.1f}",
            f"**{line['whole']:.0f}**" + ("" if line["iterations"] == line["of"] else " (extrap.)"),
            ", ".join(
                f"{name} {share:.0%}" for name, share in _shares(line["phases"]) if share >= 0.03
            ),
        ]
        for line in lines
    ]
    heads = ["way", "iterations", "took, s", "the whole, s", "where the time goes"]
    first = lines[0]
    return (
        f"### One distillation at the paper's budget: {first['teachers']} teachers, batches of "
        f"{first['batch']}\n\nBy `cifar10/drop.json`. The phases are as the processor sees them: a "
        "wait for the card counts where it happens.\n\n" + markdown(heads, rows)
    )


def _shares(phases: dict[str, float]) -> list[tuple[str, float]]:
    total = sum(phases.values()) or 1.0
    ranked = sorted(phases.items(), key=lambda phase: -phase[1])
    return [(name, seconds / total) for name, seconds in ranked]


def _cells(lines: Sequence[Line]) -> str:
    lines = [line for line in lines if line["rounds"]]
    if not lines:
        return ""

    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f}"

    rows = [
        [
            line["cell"] + (", bfloat16" if line["half"] else ""),
            f"{line['rounds']} of {line['of']}" + (NOT_REACHED if undistilled(line) else ""),
            percent(line["mta"]),
            f"{PAPER[line['cell']][0]:.1f}",
            percent(line["asr"]),
            percent(line["asr_worst"]),
            f"{PAPER[line['cell']][1]:.1f}",
            "-" if line["seconds"] is None else f"{line['seconds']:.2f}",
        ]
        for line in lines
    ]
    heads = ["cell", "rounds", "MTA %", "the paper's", "ASR %", "worst ASR %", "the paper's"]
    heads += ["a round without distillation, s"]
    return (
        "### Table III, CIFAR-10, C4, DPR 1.25 % (field 0.125), MCR 20 %, seed 71\n\n"
        "MTA and ASR are means of the last ten rounds so far, the paper's are of its 200: a run "
        "that is not through is no reproduction.\n\n" + markdown(heads, rows)
    )


def _gaps(lines: Sequence[Line]) -> str:
    gaps = [f"{line['name']}: {line['how']}" for line in lines if line["how"] != "done"]
    return "Not whole: " + "; ".join(gaps) + "." if gaps else ""


__all__ = ["NOT_REACHED", "latest", "section", "undistilled"]
