"""Which experiment a configuration is: its JSON, its hash and its name."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import (
    APPROXIMATE,
    OF_VECTORIZED,
    RUNTIME_SETTINGS,
    WITHOUT_EFFECT,
    ExperimentConfig,
)
from entity.config.schema import flatten
from entity.defenses import DEFENSES
from entity.poisons import POISONS
from entity.record.json_fields import mapping
from entity.setup.field_list import fields
from entity.setup.named_files import contents

ERA = 2
"""A part of every identity, which is made of what differs from the defaults: to be raised when the
default of a field changes, so that runs from before are not taken for runs with the new one."""


def to_json(config: ExperimentConfig) -> dict[str, Any]:
    """Return nested tables that `resolve.experiment` would build the same experiment from."""
    tables = schema.dump(config)
    attack = tables["client"]["attack"]
    if attack is not None:
        for name in ("args", "poison_args"):
            attack.update(attack.pop(name) or {})
    return tables


def identity(config: ExperimentConfig) -> str:
    """Return the hash (12 hex digits) of everything in a config that can change a result.

    Fields that the rest of it makes idle are among them.
    """
    return fingerprint(to_json(config))


def fingerprint(tables: Mapping[str, Any], code: bool = True) -> str:
    """Return the identity of the experiment whose `to_json` these tables are, unchecked.

    It is made of the fields that differ from their defaults: one that a later version adds, with
    a default that changes nothing, leaves the identities of finished runs as they were. Without
    `code`, revisions of methods and the files of plugins do not count.
    """
    defaults = {field.path: field.default for field in fields(tables, shipped=True)}
    kept: dict[str, Any] = {"era": ERA}
    read = contents(tables)
    if read:
        kept["contents"] = read
    engine = mapping(tables.get("settings")).get("engine")
    for path, value in flatten(tables):
        if code and path in REVISED and (revision := REVISED[path].of(value)) > 1:
            kept[REVISED[path].key] = revision
        if path in read:  # what lies there counts, not where; so do the next ones
            continue
        if path in _CODE:
            if value and (code or path != "plugins"):
                kept[path] = sorted(map(_hash, value)) if path == "plugins" else _hash(value)
        elif _changes_results(path, value, engine) and value != defaults.get(
            path, dataclasses.MISSING
        ):
            kept[path] = value
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


_CODE = ("plugins", "initial")
"""Fields that name a file, of which the record has the hash."""


class _Revised(NamedTuple):
    """Methods of which a later version may give other numbers at the same settings."""

    key: str
    """Under which a revision above the first one is kept."""
    methods: Mapping[str, type[Any]]

    def of(self, name: object) -> int:
        """Return the revision of a method; 1 of one that is not known here."""
        known = self.methods.get(name) if isinstance(name, str) else None
        return known.revision if known else 1


REVISED = {
    "server.defense.type": _Revised("revision", DEFENSES),
    "client.attack.type": _Revised("attack revision", ATTACKS),
    "client.attack.poison": _Revised("poison revision", POISONS),
}
"""Fields that name such methods."""


def revisions(tables: Mapping[str, Any]) -> dict[str, int]:
    """Return the revisions, by their keys, of the methods that `to_json` of a config names."""
    named = [(REVISED[path], value) for path, value in flatten(tables) if path in REVISED]
    return {revised.key: revised.of(name) for revised, name in named}


def _hash(entry: object) -> str:
    return str(entry).rpartition("#sha256=")[2]


def _changes_results(path: str, value: object, engine: object) -> bool:
    if path == "name" or path in WITHOUT_EFFECT:
        return False
    name = path.removeprefix("settings.")
    if name == path or (engine == "vectorized" and name in OF_VECTORIZED):
        return True
    return value == APPROXIMATE[name] if name in APPROXIMATE else name not in RUNTIME_SETTINGS


def default_name(config: ExperimentConfig) -> str:
    """Return a name for a run: data set, defense, attack and seed."""
    attack = config.client.attacked_by.replace("none", "no-attack")
    defense = config.server.defense.type
    # An image folder's name may be a path.
    dataset = Path(config.dataset.removeprefix("imagefolder:")).name or "imagefolder"
    return f"{dataset}-{defense}-{attack}-seed{config.settings.seed}"
