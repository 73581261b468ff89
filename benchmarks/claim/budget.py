"""Whether a larger budget takes the backdoor out of a student that starts from a model with one."""

from statistics import fmean

from pages import markdown

from claim import prose
from claim.design import BUDGET, Labels, design
from claim.results import Results
from claim.texts import by_seed, counted, percent

BEFORE = ("none", "narrow")
TITLES = {
    "none": "no distillation (DROPlet)",
    "60x64": "60 iterations of 64 images",
    "65x512": "65 of 512, a tenth of the paper's",
    "651x512": "651 of 512, the paper's",
}
ANSWER = "**Is it the budget?**"
TAKEN_OUT, KEPT = 0.1, 0.5
"""ASR up to which a backdoor counts as taken out, and from which on as kept."""


def section(results: Results) -> str:
    """Return the part of the page on the budget."""
    rows = [
        [
            TITLES[labels[0]],
            "" if labels == BEFORE else labels[1],
            by_seed(results, BUDGET, labels, "asr"),
            by_seed(results, BUDGET, labels, "mta"),
        ]
        for labels in design(BUDGET).seeds
    ]
    table = markdown(["budget of the distillation", "networks", "ASR %", "MTA %"], rows)
    said = "\n".join(f"- {each}" for each in [*_sentences(results), _verdict(results)] if each)
    no = f"{ANSWER} No:" in said or f"{ANSWER} No," in said
    left = f"\n\n{prose.LEFT}" if no else ""
    return f"{prose.BUDGET}\n\n{table}\n\n{said}{left}"


def _pairs(results: Results, labels: Labels) -> list[tuple[float, float]]:
    """Return the ASR before and after, by seed."""
    pairs: list[tuple[float, float]] = []
    for line in results.of(BUDGET, labels):
        before = results.at(BUDGET, BEFORE, line.seed)
        if before is not None and before.asr is not None and line.asr is not None:
            pairs.append((before.asr, line.asr))
    return pairs


def _run(results: Results) -> list[tuple[str, str]]:
    """Return the distillations that were run: budget and width of the networks."""
    planned = [labels for labels in design(BUDGET).seeds if labels != BEFORE]
    return [(budget, width) for budget, width in planned if _pairs(results, (budget, width))]


def _sentences(results: Results) -> list[str]:
    said: list[str] = []
    for labels in design(BUDGET).seeds:
        pairs = _pairs(results, labels) if labels != BEFORE else []
        if pairs:
            before, after = (fmean(each) for each in zip(*pairs, strict=True))
            said.append(
                f"{TITLES[labels[0]]}, {labels[1]}: from {percent(before)} % to "
                f"{percent(after)} % ({counted(len(pairs), 'seed')})."
            )
    return said


def _verdict(results: Results) -> str:
    """Answer the question by the largest budget that was run, with networks as large as its."""
    for name in ("651x512", "65x512"):
        widths = [width for budget, width in _run(results) if budget == name]
        large = [pair for width in widths for pair in _pairs(results, (name, width))]
        small = [pair for width in widths for pair in _pairs(results, ("60x64", width))]
        if not large or not small:
            continue
        before = fmean(pair[0] for pair in large)
        little, much = (fmean(after for _, after in pairs) for pairs in (small, large))
        if before < KEPT:
            return f"{ANSWER} Not to be said: there was hardly a backdoor to take out."
        if little <= TAKEN_OUT and much >= KEPT:
            answer = "No, rather the other way round: a student that is taught longer keeps more"
        elif little <= TAKEN_OUT:
            answer = f"No: the small one does {'as well' if much <= TAKEN_OUT else 'better'}"
        elif much <= TAKEN_OUT:
            answer = "Yes"
        elif much >= KEPT:
            answer = "No, the student keeps the backdoor" + (
                "" if name == "651x512" else " with a tenth of the paper's budget"
            )
        else:
            answer = "In part"
        rest = "" if name == "651x512" else " The paper's whole budget was not run yet."
        return (
            f"{ANSWER} {answer}: {percent(much)} % after {TITLES[name]}, "
            f"{percent(little)} % after {TITLES['60x64']} ({counted(len(large), 'run')}).{rest}"
        )
    return f"{ANSWER} Not known yet."
