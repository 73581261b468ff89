"""The runs side by side: each with a label of its own, a colour, and its outcome in numbers."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from entity.record.consistency import consistency, level_in_words
from entity.record.json_fields import mapping, number
from entity.record.summary import MAIN_PHASES
from entity.record.window import Window, last_evaluated
from entity.report.axes import Axis, differing, values
from entity.report.looks import Look, looks
from entity.report.runs import RunRecord
from entity.results.floor import Judged, floors
from entity.results.titles import titled


@dataclass(frozen=True)
class Outcome:
    """The results of a run; None where its record has none."""

    mta: float | None
    """Mean main-task accuracy over the last ten evaluated rounds, or as many as there are."""
    asr: float | None
    """Mean attack success rate over the same rounds."""
    asr_max: float | None
    worst_asr: float | None
    """Highest attack success rate of all rounds with acceptable accuracy."""
    level: str
    """The accuracy that is acceptable, in words."""
    floor: float | None
    """Attack success rate of the same run without attack, if that is in the line-up."""
    victim_accuracy: float | None
    """Mean accuracy on clean images of the class that is attacked, over the same last rounds."""
    refused: int
    judged: int
    """Updates that the defense was asked about, over all rounds."""
    tpr: float | None
    """Share of the poisoned updates that were refused."""
    fpr: float | None
    """Share of the honest updates that were refused."""
    seconds: float | None
    memory_mb: float | None
    window: Window
    """What the means are taken over."""


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed alone: one colour, one button above the curves."""

    index: int
    label: str
    runs: tuple[int, ...]
    """Places of its runs in the line-up."""
    look: Look = field(default_factory=Look)

    @property
    def colour(self) -> str:
        """Return the CSS variable of its curves."""
        return f"--run-{self.look.colour + 1}"

    @property
    def dash(self) -> str:
        """Return the dash of its curves, in plotly's words."""
        return self.look.dash

    @property
    def symbol(self) -> str:
        """Return the sign on its curves, in plotly's words."""
        return self.look.symbol


@dataclass(frozen=True)
class Entry:
    """A run in the page."""

    index: int
    label: str
    run: RunRecord
    outcome: Outcome
    group: Group
    names: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names of methods that go before the published ones."""

    @property
    def seed(self) -> str:
        """Its seed."""
        return self.run.setting("settings.seed")

    @property
    def defense(self) -> str:
        """Name of the defense for readers."""
        return titled(self.run.defense, self.names)

    @property
    def attack(self) -> str:
        """Name of the attack for readers."""
        return titled(self.run.attack, self.names)

    @property
    def state(self) -> str:
        """Say what is missing of the run, "" if it is whole."""
        if self.run.complete:
            return ""
        planned = self.run.planned_rounds
        done = len(self.run.rounds)
        return f"partial: {done} of {planned} rounds" if planned else f"partial: {done} rounds"


def make_entries(
    runs: Sequence[RunRecord],
    names: Mapping[str, str] | None = None,
    mta_at_least: float | None = None,
) -> list[Entry]:
    """Give every run a label that no other has.

    Parameters
    ----------
    runs
        The runs.
    names
        Names of methods that go before the published ones of `results.titles`.
    mta_at_least
        MTA, from 0 to 1, of the rounds whose worst ASR counts; None is a share of the run's last.
    """
    names = dict(names or {})
    labels = [titled(label, names) for label in _labels(runs)]
    group_of = {place: group for group in _groups(runs, labels, names) for place in group.runs}
    outcomes = [outcome(run, mta_at_least) for run in runs]
    known = [each.asr if run.complete else None for run, each in zip(runs, outcomes, strict=True)]
    found = floors([Judged(run.config, asr) for run, asr in zip(runs, known, strict=True)])
    return [
        Entry(place, label, run, replace(each, floor=floor), group_of[place], names)
        for place, (label, run, each, floor) in enumerate(
            zip(labels, runs, outcomes, found, strict=True)
        )
    ]


def _groups(
    runs: Sequence[RunRecord], labels: Sequence[str], names: Mapping[str, str]
) -> list[Group]:
    """Put together what differs by settings alone: the seed, and how it was run.

    Fields that do nothing in a run do not tell it apart.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for place, run in enumerate(runs):
        members[json.dumps(values(run), sort_keys=True)].append(place)
    axes = differing(runs)
    together = list(map(tuple, members.values()))
    looked = looks([runs[places[0]].defense for places in together])
    return [
        Group(
            index,
            titled(_group_label([runs[each] for each in places], labels, places, axes), names),
            places,
            look,
        )
        for index, (places, look) in enumerate(zip(together, looked, strict=True))
    ]


def _group_label(
    runs: Sequence[RunRecord], labels: Sequence[str], places: Sequence[int], axes: Sequence[Axis]
) -> str:
    """Name a single run by its label, and several by what they have in common."""
    if len(runs) == 1:
        return labels[places[0]]
    return ", ".join(axis.label(axis.written(runs[0])) for axis in axes) or runs[0].defense


def outcome(run: RunRecord, mta_at_least: float | None = None) -> Outcome:
    """Take the summary's figures; work out from the rounds what it lacks, or what is asked for."""
    mta, asr = (mapping(run.summary.get(key)) for key in ("mta", "asr"))
    detection = mapping(run.summary.get("detection"))
    seconds = mapping(run.summary.get("seconds"))
    asrs = last_evaluated(each.asr for each in run.rounds)
    mtas = last_evaluated(each.mta for each in run.rounds)
    poisoned = sum(len(each.malicious) for each in run.rounds)
    missed = sum(each.missed for each in run.rounds)
    judged = sum(len(each.selected) for each in run.rounds)
    refused = sum(len(each.refused) for each in run.rounds)
    false_alarms = refused - (poisoned - missed)
    rounds = ((each.round, each.mta, each.asr) for each in run.rounds)
    found = consistency(rounds, mta_at_least)
    worst = found and found.worst_asr
    if mta_at_least is None:
        worst = _first(number(mapping(run.summary.get("consistency")), "worst_asr"), worst)
    spent = sum(each.seconds.get(phase, 0.0) for each in run.rounds for phase in MAIN_PHASES)
    return Outcome(
        mta=_first(number(mta, "last10"), _ratio(sum(mtas), len(mtas))),
        asr=_first(number(asr, "last10"), _ratio(sum(asrs), len(asrs))),
        asr_max=_first(number(asr, "max_last10"), max(asrs, default=None)),
        worst_asr=worst,
        level=level_in_words(mta_at_least),
        floor=None,
        victim_accuracy=number(mapping(run.summary.get("victim_accuracy")), "last10"),
        refused=refused,
        judged=judged,
        tpr=_first(number(detection, "tpr"), _ratio(poisoned - missed, poisoned)),
        fpr=_first(number(detection, "fpr"), _ratio(false_alarms, judged - poisoned)),
        seconds=_first(number(seconds, "total"), spent or None),
        memory_mb=number(run.summary, "peak_memory_mb"),
        window=Window.of([{"mta": each.mta, "asr": each.asr} for each in run.rounds]),
    )


def without_common_start(names: Sequence[str]) -> list[str]:
    """Leave out the words that all names begin with, so that what tells them apart is read first.

    Examples
    --------
    >>> without_common_start(["mnist-stealthy-drop", "mnist-stealthy-droplet"])
    ['drop', 'droplet']
    >>> without_common_start(["drop", "drop"])
    ['drop', 'drop']
    """
    words = [re.split(r"(?<=[-_/. ])", name) for name in names]
    if len(set(names)) < 2:
        return list(names)
    start = 0
    while all(len(one) > start + 1 and one[start] == words[0][start] for one in words):
        start += 1
    return ["".join(one[start:]) for one in words]


def _first(said: float | None, computed: float | None) -> float | None:
    return computed if said is None else said


def _ratio(part: float, whole: int) -> float | None:
    return part / whole if whole else None


def _labels(runs: Sequence[RunRecord]) -> list[str]:
    """Tell runs of one name apart by what differs: fields, seed, or else a number."""
    labels = without_common_start([run.name for run in runs])
    ways: list[list[str]] = [[run.setting("server.defense.type") for run in runs]]
    ways += [[axis.label(axis.written(run)) for run in runs] for axis in differing(runs)]
    ways += [[f"seed {seed}" if (seed := run.setting("settings.seed")) else "" for run in runs]]
    for words in ways:
        alike: dict[str, set[str]] = defaultdict(set)
        for label, word in zip(labels, words, strict=True):
            alike[label].add(word)
        labels = [
            f"{label}, {word}" if len(alike[label]) > 1 and word else label
            for label, word in zip(labels, words, strict=True)
        ]
    seen, used = Counter(labels), Counter[str]()
    for index, label in enumerate(labels):
        if seen[label] > 1:
            used[label] += 1
            labels[index] = f"{label} ({used[label]})"
    return labels
