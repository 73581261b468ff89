"""Blocks: runs that differ by their defense alone, so that defenses can be compared in them."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from entity.report.axes import Axis, differing, every_field
from entity.report.entries import Entry
from entity.results.formatting import NONE
from entity.setup.effect import idle

_OF_THE_DEFENSE = "server.defense."

UNDEFENDED = "undefended"
WORKS = 0.5
"""Worst ASR of the undefended run from which on an attack counts as one."""


@dataclass(frozen=True)
class Block:
    """One setting: the runs of several defenses with the same attack, data and seed."""

    runs: Mapping[str, Entry]
    """By the name of the defense, for readers."""
    undefended: Entry | None

    @property
    def attacked(self) -> bool:
        """Whether there is an attack, and it works where nobody defends, if that is known."""
        runs = self.runs.values()
        if all(each.run.attack == "none" or each.outcome.worst_asr is None for each in runs):
            return False
        worst = None if self.undefended is None else self.undefended.outcome.worst_asr
        return worst is None or worst >= WORKS


def blocks(entries: Sequence[Entry]) -> list[Block]:
    """Return the blocks of two defenses or more, of the runs that ended.

    A defense that a block has with several settings has these in its name.
    """
    ended = [entry for entry in entries if entry.run.complete]
    configs = [every_field(entry.run) for entry in ended]
    used = frozenset[str]().union(*(config.keys() - idle(config) for config in configs))
    members: dict[str, list[Entry]] = {}
    for entry, config in zip(ended, configs, strict=True):
        members.setdefault(_apart(config, used), []).append(entry)
    settings = _settings(ended, members.values())
    made: list[Block] = []
    for found in members.values():
        runs = {_name(entry, settings.get(entry.run.defense, ())): entry for entry in found}
        bare = next((each for each in found if each.run.defense == UNDEFENDED), None)
        if len(runs) > 1:
            made.append(Block(runs, bare))
    return made


def _settings(
    entries: Sequence[Entry], members: Iterable[Sequence[Entry]]
) -> dict[str, Sequence[Axis]]:
    """Return the settings in which the runs of each defense differ that a block has twice."""
    several: set[str] = set()
    for found in members:
        counts = Counter(entry.run.defense for entry in found)
        several |= {defense for defense, count in counts.items() if count > 1}
    return {
        defense: [
            axis
            for axis in differing([e.run for e in entries if e.run.defense == defense])
            if axis.path.startswith(_OF_THE_DEFENSE)
        ]
        for defense in several
    }


def _name(entry: Entry, settings: Sequence[Axis]) -> str:
    said = [(axis, written) for axis in settings if (written := axis.written(entry.run)) != NONE]
    return ", ".join([entry.defense, *(axis.label(written) for axis, written in said)])


def _apart(config: Mapping[str, object], used: frozenset[str]) -> str:
    """Return what a run's configuration is but for the defense, its name, and how it was run.

    Parameters
    ----------
    config
        Its fields by dotted path.
    used
        Fields that do something in some run; the others tell nothing apart.
    """
    kept = {
        path: value
        for path, value in config.items()
        if path in used
        and path not in ("name", "plugins")
        and not path.startswith((_OF_THE_DEFENSE, "settings."))
    }
    return json.dumps([kept, config.get("settings.seed")], sort_keys=True)
