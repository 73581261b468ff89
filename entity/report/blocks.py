"""Blocks: runs that differ by their defense alone, so that defenses can be compared in them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from entity.config.schema import flatten
from entity.report.entries import Entry
from entity.setup.effect import idle

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
    configs = [dict(flatten(entry.run.config)) for entry in ended]
    used = frozenset[str]().union(*(config.keys() - idle(config) for config in configs))
    members: dict[str, list[Entry]] = {}
    for entry, config in zip(ended, configs, strict=True):
        members.setdefault(_apart(config, used), []).append(entry)
    several = any(_twice([entry.run.defense for entry in found]) for found in members.values())
    made: list[Block] = []
    for found in members.values():
        names = [entry.group.label if several else entry.defense for entry in found]
        runs = dict(zip(names, found, strict=True))
        bare = next((each for each in found if each.run.defense == UNDEFENDED), None)
        if len(runs) > 1:
            made.append(Block(runs, bare))
    return made


def _twice(names: Sequence[str]) -> bool:
    return len({*names}) < len(names)


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
        and not path.startswith(("server.defense.", "settings."))
    }
    return json.dumps([kept, config.get("settings.seed")], sort_keys=True)
