"""Blocks: runs that differ by their defense alone, so that defenses can be compared in them."""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

from entity.record.json_fields import at, mapping
from entity.report.entries import Entry

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
        if all(entry.outcome.worst_asr is None for entry in self.runs.values()):
            return False
        worst = None if self.undefended is None else self.undefended.outcome.worst_asr
        return worst is None or worst >= WORKS


def blocks(entries: Sequence[Entry]) -> list[Block]:
    """Return the blocks of two defenses or more, of the runs that ended.

    A defense that a block has with several settings has these in its name.
    """
    members: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.run.complete:
            members.setdefault(_apart(entry.run.config), []).append(entry)
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


def _apart(config: Mapping[str, object]) -> str:
    """Return what a run's configuration is but for the defense, its name, and how it was run."""
    kept = deepcopy(dict(config))
    server = mapping(kept.get("server"))
    kept["server"] = {key: value for key, value in server.items() if key != "defense"}
    kept["settings"] = at(config, "settings.seed")
    kept["name"] = kept["plugins"] = None
    return json.dumps(cast("object", kept), sort_keys=True)
