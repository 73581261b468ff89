"""The page's opening: what was run, in a strip of facts, and what came out, in a sentence.

Also which columns the table of results needs: those in which the runs differ.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.dataset.registry import find
from entity.record.consistency import level_in_words
from entity.record.json_fields import at, attack_of, mapping, number
from entity.record.window import remark, span
from entity.report.axes import ATTACK, DEFENSE, Axis, differing
from entity.report.entries import Entry, Group
from entity.report.runs import RunRecord
from entity.report.seed_bands import by_group, by_seed
from entity.results.formatting import NBSP, counted, percent


@dataclass(frozen=True)
class Overview:
    """Facts of all runs together."""

    verdict: str
    facts: list[tuple[str, str]]
    groups: list[Group]
    attacks: frozenset[str]
    seeds: frozenset[str]
    axes: list[Axis]
    """Other fields that tell the runs apart."""
    any_distilled: bool
    """Whether a server distilled a model in any round."""
    any_floor: bool
    """Whether the ASR without attack is known of any run."""
    any_victims: bool
    """Whether the accuracy on the victims is known of any run."""
    any_other_name: bool
    """Whether a run is called by another name than its defense's."""
    span: str
    """Which rounds the means are of."""
    level: str
    """MTA of the rounds whose worst ASR counts, in words."""
    rising: str
    """Runs whose curves still rise over these rounds, in a sentence; "" for none."""


def overview(entries: Sequence[Entry]) -> Overview:
    """Sum up the runs of a page."""
    axes = differing([entry.run for entry in entries])
    return Overview(
        verdict=verdict(entries),
        facts=facts(entries),
        groups=list({entry.group.index: entry.group for entry in entries}.values()),
        attacks=frozenset(entry.run.attack for entry in entries),
        seeds=frozenset(entry.run.setting("settings.seed") for entry in entries),
        axes=[axis for axis in axes if axis.path not in (DEFENSE, ATTACK)],
        any_distilled=any(each.distilled for entry in entries for each in entry.run.rounds),
        any_floor=any(entry.outcome.floor is not None for entry in entries),
        any_victims=any(entry.outcome.victim_accuracy is not None for entry in entries),
        any_other_name=any(entry.label != entry.defense for entry in entries),
        span=span(entry.outcome.window for entry in entries),
        level=entries[0].outcome.level if entries else level_in_words(None),
        rising=remark((entry.label, entry.outcome.window) for entry in entries),
    )


def facts(entries: Sequence[Entry]) -> list[tuple[str, str]]:
    """Name the settings that a reader asks for first, with all their values."""
    wanted: list[tuple[str, Callable[[RunRecord], str]]] = [
        ("data set", lambda run: run.setting("dataset")),
        ("model", lambda run: run.setting("model")),
        ("attack", lambda run: run.attack),
        ("poisoned data", _data_poisoning_rate),
        ("classes", _classes),
        ("clients", _clients),
        ("rounds", lambda run: run.setting("federation.rounds")),
        ("seed", lambda run: run.setting("settings.seed")),
    ]
    found: list[tuple[str, str]] = []
    for name, read in wanted:
        values = list(dict.fromkeys(value for entry in entries if (value := read(entry.run))))
        if values:
            more = f" and {len(values) - 4} more" if len(values) > 4 else ""
            between = "; " if any(", " in value for value in values) else ", "
            found.append((name, between.join(values[:4]) + more))
    return found


def verdict(entries: Sequence[Entry]) -> str:
    """Say what kept the attack out best and at what accuracy, ties together; "" without any.

    Runs that differ by their seed alone are judged by their mean. Runs that did not end, and those
    without an attack, are judged where there are no others alone.
    """
    entries, of_kind = _worth_comparing(entries)
    seeds = len(by_group(entries)) < len(entries)
    judged: list[Judgement] = []
    for group in by_group(entries):
        both = [
            entry
            for entry in group
            if entry.outcome.asr is not None and entry.outcome.mta is not None
        ]
        if both:
            asr, mta = (fmean(by_seed(both, metric).values()) for metric in ("asr", "mta"))
            known = [entry.outcome.worst_asr for entry in group]
            worst = max((each for each in known if each is not None), default=None)
            judged.append(Judgement(asr, mta, group[0].group.label, worst))
    if not judged:
        return ""
    if len(judged) == 1:
        [one] = judged
        return (
            f"{one.name} ends with an attack success rate of {_rate(judged)} "
            f"and a main-task accuracy of {percent(one.mta)}."
        )
    kind = counted(len(judged), f"{of_kind}{'configuration' if seeds else 'run'}")
    lowest, highest = (_alike(judged, pick(each.asr for each in judged)) for pick in (min, max))
    if lowest == highest:
        all_of_them = f"Both {kind[2:]}" if len(judged) == 2 else f"All {kind}"
        return (
            f"{all_of_them} end with an attack success rate of {_rate(judged)}, "
            f"with {_accuracies(judged)}."
        )
    return (
        f"{_names(lowest)} {_has(lowest)} the lowest attack success rate of the {kind}, "
        f"{_rate(lowest)}, with {_accuracies(lowest)}; {_names(highest)} {_has(highest)} "
        f"the highest, {_rate(highest)}, with {_accuracies(highest)}."
    )


def _worth_comparing(entries: Sequence[Entry]) -> tuple[Sequence[Entry], str]:
    """Leave out runs that say nothing of a defense, and return the word for the others."""
    attacked = [entry for entry in entries if entry.run.attack != "none"]
    ended = [entry for entry in attacked if entry.run.complete]
    if not ended:
        return entries, ""
    word = "attacked " if len(attacked) < len(entries) else ""
    return ended, f"finished {word}" if len(ended) < len(attacked) else word


class Judgement(NamedTuple):
    """What a group of runs came to."""

    asr: float
    mta: float
    name: str
    worst: float | None
    """The highest ASR of all rounds of acceptable accuracy, and runs."""


def _rate(judged: Sequence[Judgement]) -> str:
    """Return the ASR of some that read alike, and their worst where that reads otherwise."""
    last = percent(judged[0].asr)
    worst = max((each.worst for each in judged if each.worst is not None), default=None)
    if worst is None or percent(worst) == last:
        return last
    return f"{last} (worst {'up to ' if len(judged) > 1 else ''}{percent(worst)})"


def _alike(judged: Sequence[Judgement], asr: float) -> list[Judgement]:
    """Return all whose attack success rate reads the same: what is not shown does not rank."""
    return [each for each in judged if percent(each.asr) == percent(asr)]


def _has(judged: Sequence[Judgement]) -> str:
    return "has" if len(judged) == 1 else "share"


def _names(judged: Sequence[Judgement], most: int = 5) -> str:
    names = [each.name for each in judged]
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


def _accuracies(judged: Sequence[Judgement]) -> str:
    low, high = (pick(each.mta for each in judged) for pick in (min, max))
    if percent(low) == percent(high):
        return f"a main-task accuracy of {percent(high)}"
    return f"main-task accuracies from {percent(low)} to {percent(high)}"


def _data_poisoning_rate(run: RunRecord) -> str:
    rate = at(run.config, "client.attack.DPR")
    if not isinstance(rate, int | float) or not attack_of(run.config):
        return ""
    of_victims = f"{100 * rate:g}{NBSP}% of the victims"
    of_all = number(mapping(run.summary.get("dpr")), "of_all")
    return of_victims if of_all is None else f"{of_victims}, {percent(of_all, 2)} of all"


def _classes(run: RunRecord) -> str:
    victim, target = (_class(run, f"client.attack.{one}_class") for one in ("victim", "target"))
    return f"{victim} → {target}" if victim and target else ""


def _class(run: RunRecord, path: str) -> str:
    """Return a class as its number and its name, where the data set is known here."""
    label = at(run.config, path)
    dataset, root = run.setting("dataset"), run.setting("settings.datasets_path")
    with suppress(ConfigError, IndexError):
        if isinstance(label, int) and label >= 0:
            return find(dataset, user_path(root or ".")).named(label)
    return run.setting(path)


def _clients(run: RunRecord) -> str:
    size = run.setting("federation.size")
    malicious = run.setting("federation.number_of_malicious_clients")
    a_round = run.setting("federation.round_size")
    parts = [size, f"{malicious} malicious" if malicious else ""]
    parts += [f"{a_round} a round" if a_round != size else ""]
    return ", ".join(part for part in parts if part)
