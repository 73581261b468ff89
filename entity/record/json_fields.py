"""Typed fields of JSON from any source: one of the wrong type counts as absent.

A report must show what a crashed or an older run left behind, so nothing here raises;
`entity.config.schema` reads configs strictly.
"""

import math
from collections.abc import Mapping
from typing import cast

Json = Mapping[str, object]


def mapping(data: object) -> dict[str, object]:
    """Return `data` if it is a JSON object, else an empty one."""
    if not isinstance(data, dict):
        return {}
    return {str(key): value for key, value in cast("dict[object, object]", data).items()}


def number(data: Json, key: str) -> float | None:
    """Return a finite number, else None.

    Examples
    --------
    >>> number({"mta": 1}, "mta"), number({"mta": float("nan")}, "mta"), number({}, "mta")
    (1.0, None, None)
    """
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:  # 400 digits
        return None
    return value if math.isfinite(value) else None


def numbers(data: Json, key: str) -> dict[str, float]:
    """Return the finite numbers of the object `data[key]`."""
    inner = mapping(data.get(key))
    pairs = ((name, number(inner, name)) for name in inner)
    return {name: value for name, value in pairs if value is not None}


def text(data: Json, key: str) -> str:
    """Return a string, or "" if there is none."""
    value = data.get(key)
    return value if isinstance(value, str) else ""


def texts(data: Json, key: str) -> dict[str, str]:
    """Return the strings of the object `data[key]`."""
    inner = mapping(data.get(key))
    return {name: value for name, value in inner.items() if isinstance(value, str)}


def ids(data: Json, key: str) -> tuple[str, ...]:
    """Return a list of client ids as strings, as the keys of JSON objects are anyway."""
    value = data.get(key)
    if not isinstance(value, list):
        return ()
    return tuple(str(item) for item in cast("list[object]", value))


def at(data: Json, path: str) -> object:
    """Look up a dotted path; None where it ends early.

    Examples
    --------
    >>> at({"client": {"attack": None}}, "client.attack.type") is None
    True
    """
    value: object = data
    for key in path.split("."):
        value = mapping(value).get(key)
    return value


def attack_of(config: Json) -> str:
    """Return the attack that takes place in a run, by its configuration; "" for none.

    Examples
    --------
    >>> attack_of({"client": {"attack": {"type": "badnets"}}})
    'badnets'
    >>> attack_of({"client": {"attack": {"type": "badnets", "participation_strategy": "never"}}})
    ''
    """
    attack = mapping(at(config, "client.attack"))
    return "" if attack.get("participation_strategy") == "never" else text(attack, "type")
