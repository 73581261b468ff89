"""The floor of an attack: the ASR of the same run without it, by which an ASR is to be read.

Triggered images that a clean model takes for the target class are no success of an attack. The same
run without attack (`participation_strategy: never`) says how many there are; it serves all attacks
that are judged by the same images, whatever they poison and how much. A trigger that attackers
learn against the model (A3FL, IBA) has no floor: without attack nobody learns it, and what it does
to a clean model is not measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

from entity.client.poison import AdaptivePoison
from entity.poisons import POISONS
from entity.record.json_fields import at, attack_of, mapping
from entity.setup.foreign_fields import forget_foreign_attack_fields
from entity.setup.identity import fingerprint

_WHO_AND_WHEN = (
    *("type", "DPR", "non_iid_equal_distribution", "participation_strategy"),
    *("poisoning_start_round", "poisoning_end_round", "poisoning_every", "false_votes"),
)
"""Fields of any attack that say who poisons what and when."""

_OF_ATTACKERS = ("batchwise_poison", "amp_enabled_only_for_clean")
_NUMBER = ("number_of_malicious_clients", "malicious_client_strategy")


class Judged(NamedTuple):
    """A run's configuration, and its ASR if that is known."""

    config: Mapping[str, object]
    asr: float | None


def floors(runs: Sequence[Judged]) -> list[float | None]:
    """Return the floor of each run, from its attack-free twin among these runs; None without one.

    None, too, where the trigger is learnt.

    A twin with another number of malicious clients, which none of them is, will do where there is
    none with the same. A run without attack has no floor: its ASR is one.
    """
    exact: dict[str, float] = {}
    near: dict[str, float] = {}
    for config, asr in runs:
        if asr is not None and not attack_of(config):
            exact.setdefault(_without_attack(config), asr)
            near.setdefault(_without_attack(config, whoever=True), asr)
    if not exact:
        return [None] * len(runs)
    return [
        _floor(config, exact, near) if attack_of(config) and not _is_learnt(config) else None
        for config, _ in runs
    ]


def _is_learnt(config: Mapping[str, object]) -> bool:
    poison = POISONS.get(str(at(config, "client.attack.poison")))
    return poison is not None and issubclass(poison, AdaptivePoison)


def _floor(
    config: Mapping[str, object], exact: Mapping[str, float], near: Mapping[str, float]
) -> float | None:
    found = exact.get(_without_attack(config))
    return near.get(_without_attack(config, whoever=True)) if found is None else found


def _without_attack(config: Mapping[str, object], whoever: bool = False) -> str:
    """Return what runs share that differ by their attack alone, but for what it is judged by."""
    tables = deepcopy(dict(config))
    attack = mapping(at(tables, "client.attack"))
    judged = {"type": "badnets", **_kept(attack)}
    client = mapping(tables.get("client"))
    tables["client"] = {**_except(client, _OF_ATTACKERS), "attack": judged}
    if whoever:
        tables["federation"] = _except(mapping(tables.get("federation")), _NUMBER)
    return fingerprint(tables)


def _kept(attack: dict[str, Any]) -> dict[str, Any]:
    """Return by what an attack is judged: its classes and trigger, and its data poison's fields."""
    own = {**attack, "type": "badnets"}
    forget_foreign_attack_fields(own)
    return _except(own, _WHO_AND_WHEN)


def _except(table: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in table.items() if name not in set(names)}
