"""Random tables and overrides for the resolver: what a user means, and what nobody would.

Values that a field's type allows are made from the type itself, so that new fields, attacks and
defenses are drawn, too.
"""

import datetime
import json
import math
import types
from collections.abc import Callable
from random import Random
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from entity.attacks import ATTACKS
from entity.config.schema import Range
from entity.dataset import DATASETS
from entity.defenses import DEFENSES
from entity.models import MODELS
from entity.poisons import POISONS
from entity.setup import resolve

Tables = dict[str, Any]
Overrides = list[tuple[str, str | None]]

CERTAIN = {
    "client.num_epochs": 1,
    "client.lr": 0.05,
    "client.batch_size": 32,
    "federation.size": 20,
    "federation.round_size": 10,
    "client.attack.target_class": 7,
}
"""Fields that are always there, unless a hostile change takes them away."""


def nested(depth: int, table: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if table else [value]
    return value


def circular() -> list[Any]:
    """Return what YAML's anchors can make: a list that holds itself."""
    value: list[Any] = [1]
    value.append(value)
    return value


HOSTILE: list[Callable[[Random], Any]] = [
    lambda rng: rng.choice([None, True, False, "", [], {}, (1, 2), [None], {"type": "drop"}]),
    lambda rng: rng.choice([math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.8e308, 1.5]),
    lambda rng: rng.choice([0, -1, 2**31, 2**63, -(2**63), 2**64, 10**400, 16**9000, -(10**400)]),
    lambda rng: rng.choice(["drop", "badnets", "Krum ", "4pixel", "none", "no.such.module:net"]),
    lambda rng: rng.choice(["a\nb", "\x00", "\x1b[2Jx", "\ud800", "\u202etxt", "x" * 9000]),
    lambda rng: rng.choice(["../..", "/dev/null", "imagefolder:../x", "imagefolder:", ".png", "~"]),
    lambda rng: nested(rng.choice([2, 19, 21, 60, 2000]), rng.random() < 0.5),
    lambda rng: rng.choice([{1: 2}, {None: 1}, {"": 0}, {"a\x00": 1}, {(1, 2): 3}, {"args": {}}]),
    lambda rng: rng.choice([b"bytes", {1, 2}, datetime.date(2020, 1, 1), circular()]),
    lambda rng: rng.randrange(-5, 200),
    lambda rng: rng.uniform(-2, 2),
    lambda rng: text(rng),
]

TEXTS = [
    *("", " ", "null", "None", "TRUE", "NaN", "-Infinity", "1e999", "-0", "0x10", "1_000", "١٢"),
    *(".5", "+1", "1e3", "5.", "[", "[" * 3000, "[[0,0]]", '{"a": 1}', '"7"', "\x00", "\ud800"),
    *("9" * 5000, "a\nb", "\x1b[31m", "drop", "../x", "1" + "0" * 400, "--seed", "=", "0b1"),
]

NAMES = [
    *("", ".", "..", "type", "args", "client", "server.defense", "client.attack", "__class__"),
    *("a\nb", "\x00", "\ud800", "x" * 5000, "-", "client.", ".lr", "LR", "defense_args", "attack"),
]


def text(rng: Random) -> str:
    """Return a few characters from anywhere in Unicode."""
    return "".join(
        chr(rng.choice([rng.randrange(32), rng.randrange(128), rng.randrange(0x110000)]))
        for _ in range(rng.randrange(8))
    )


def hostile(rng: Random) -> Any:
    return rng.choice(HOSTILE)(rng)


def fitting(rng: Random, kind: Any) -> Any:
    """Return a value that a type allows; LookupError where the type does not say which are."""
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        options = [option for option in get_args(kind) if option is not type(None)]
        if len(options) < len(get_args(kind)) and rng.random() < 0.3:
            return None
        return fitting(rng, rng.choice(options))
    if origin is Literal:
        return rng.choice(get_args(kind))
    if origin is Annotated:
        base, *limits = get_args(kind)
        found = fitting(rng, base)
        for limit in limits:
            if isinstance(limit, Range):
                found = _within(rng, limit, base)
        return found
    if origin is tuple:
        return [fitting(rng, get_args(kind)[0]) for _ in range(rng.randrange(3))]
    makers: dict[Any, Callable[[], Any]] = {
        bool: lambda: rng.random() < 0.5,
        int: lambda: rng.randrange(-1, 20),
        float: lambda: rng.uniform(0, 1),
    }
    return makers[kind]()


def _within(rng: Random, limit: Range, base: Any) -> Any:
    low = limit.low if limit.low > -math.inf else -5
    high = min(limit.high, low + rng.choice([1, 3, 20]))
    if base is int:
        return rng.randrange(math.ceil(low), math.floor(high) + 1)
    return rng.uniform(low, high) or high


def put(tables: Tables, path: str, value: Any) -> None:
    """Set a field by its dotted path; nothing happens where there is no table on the way."""
    *parents, last = path.split(".")
    table: Any = tables
    for parent in parents:
        table = table.setdefault(parent, {}) if isinstance(table, dict) else None
    if isinstance(table, dict):
        table[last] = value


def plausible(rng: Random) -> tuple[Tables, list[resolve.Field]]:
    """Return tables that their fields' types allow, and all fields that they may have."""
    defense, attack, poison = (rng.choice([*found]) for found in (DEFENSES, ATTACKS, POISONS))
    fields = resolve.fields_of(defense, attack, poison)
    tables: Tables = {"dataset": rng.choice(PLAIN), "model": rng.choice([*MODELS])}
    with_attack = rng.random() < 0.7
    for path, value in CERTAIN.items():
        if with_attack or not path.startswith("client.attack"):
            put(tables, path, value)
    if rng.random() < 0.8:
        put(tables, "server.defense.type", defense)
    if with_attack:
        put(tables, "client.attack.type", attack)
        put(tables, "client.attack.poison", poison)
    chosen = tables.get("server", {}).get("defense")
    share = rng.choice([0, 0, 0.05, 0.3])
    for field in fields:
        foreign = not with_attack and field.path.startswith("client.attack")
        foreign |= chosen is None and field.path.startswith("server.defense")
        if not foreign and field.path not in CERTAIN and rng.random() < share:
            try:
                put(tables, field.path, fitting(rng, field.kind))
            except LookupError:  # a text, whose values are somebody's registry
                continue
    return tables, fields


PLAIN = [name for name in DATASETS if name != "imagefolder"]


def places(table: Tables, where: str = "", levels: int = 6) -> list[str]:
    """Return the dotted paths of everything in nested tables, down to some level."""
    found: list[str] = []
    for key, value in table.items():
        if not isinstance(key, str):
            continue
        path = f"{where}.{key}" if where else key
        deeper = levels and isinstance(value, dict)
        found += [path, *(places(value, path, levels - 1) if deeper else ())]
    return found


def harm(rng: Random, tables: Tables) -> None:
    """Make one hostile change."""
    path = rng.choice(places(tables) or ["dataset"])
    *parents, last = path.split(".")
    table: Any = tables
    for parent in parents:
        table = table.get(parent) if isinstance(table, dict) else None
    if not isinstance(table, dict):
        return
    how = rng.random()
    if how < 0.6:
        table[last] = hostile(rng)
    elif how < 0.7:
        table.pop(last, None)
    else:
        name = rng.choice(
            [rng.choice(NAMES), misspelt(rng, last), text(rng), rng.choice([5, None, 16**9000])]
        )
        table[name] = hostile(rng)


def misspelt(rng: Random, name: str) -> str:
    place = rng.randrange(len(name) + 1)
    return name[:place] + rng.choice(["", "x", "_", name[:1]]) + name[place + 1 :]


def overrides(rng: Random, fields: list[resolve.Field], sound: bool) -> Overrides:
    """Return (name, text) pairs as a command line has them."""
    found: Overrides = []
    for _ in range(rng.choice([0, 0, 1, 3])):
        field = rng.choice(fields)
        name = field.path if rng.random() < 0.7 else field.path.rsplit(".", 1)[-1]
        try:
            value: str | None = json.dumps(fitting(rng, field.kind))
        except LookupError:
            continue
        if not sound and rng.random() < 0.6:
            name = rng.choice([name, rng.choice(NAMES), misspelt(rng, name)])
            value = rng.choice([rng.choice(TEXTS), rng.choice(TEXTS), None, text(rng)])
        found.append((name, value))
    return found
