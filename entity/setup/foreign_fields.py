"""Another defense, attack or data poison is chosen: which fields of the previous one stay.

Those that the new one has, too. `--server.defense.type` on the command line and a file that
extends another both go by this.
"""

from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import AttackConfig
from entity.defenses import ALIASES, DEFENSES
from entity.poisons import POISONS


def forget_foreign_args(defense: dict[str, Any]) -> None:
    """Remove from `defense_args`, in place, the settings that its `type` does not have.

    Examples
    --------
    >>> defense = {"type": "krum", "defense_args": {"f": 2, "reward": 0.5}}
    >>> forget_foreign_args(defense)
    >>> defense["defense_args"]
    {'f': 2}
    """
    name = str(defense.get("type")).lower()
    entry = DEFENSES.get(ALIASES.get(name, name))
    args = defense.get("defense_args")
    if entry is not None and isinstance(args, dict):
        own = schema.hints(entry.hyperparameters)
        defense["defense_args"] = {key: value for key, value in args.items() if key in own}


def forget_foreign_attack_fields(attack: dict[str, Any]) -> None:
    """Remove, in place, the fields of attacks and data poisons other than `type` and `poison`."""
    known = {
        name
        for registry in (ATTACKS, POISONS)
        for entry in registry.values()
        for name in schema.hints(entry.hyperparameters)
    }
    own = set(schema.hints(AttackConfig))
    for registry, chosen in (
        (ATTACKS, attack.get("type")),
        (POISONS, attack.get("poison", "pixel")),
    ):
        if (entry := registry.get(str(chosen))) is not None:
            own |= set(schema.hints(entry.hyperparameters))
    for key in (known - own) & set(attack):
        del attack[key]
