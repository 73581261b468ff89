"""Conditions on runs, such as `defense=drop,median and DPR<0.3`.

A condition is NAME OP VALUE with one of = != < <= > >=; of values with commas between, any may
match. `and` binds tighter than `or`; in quotes they and commas are part of a value, and commas
within brackets are, too. Names may leave out their first tables where that stays unambiguous, as on
the command line of `drop run`. A class has its number or its name.
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any

from entity.config.commas import between_commas
from entity.config.schema import ConfigError, suggest
from entity.reading import parse_json
from entity.results.classes import Label
from entity.setup.class_names import place_of

Row = Mapping[str, Any]


class BadCondition(ConfigError):
    """A condition that cannot be read, or is of no use; the sentence begins with it."""


class BadField(ConfigError):
    """A name that means no field of the runs, or several; the sentence begins with it."""


_CONDITION = re.compile(r"\s*([^\s=!<>]+)\s*(<=|>=|!=|==|=|<|>)(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'[^']*'|("[^"]*")""", re.DOTALL)
_ORDERS: dict[str, Callable[[float, float], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}


@dataclass(frozen=True)
class Condition:
    """One comparison."""

    name: str
    operator: str
    values: tuple[str, ...]

    def holds(self, value: Any) -> bool:
        """Compare; a run that lacks the field has the value None, which has no order."""
        if self.operator in _ORDERS:
            number = _number(value)
            return number is not None and _ORDERS[self.operator](number, float(self.values[0]))
        equal = any(_same(value, text) for text in self.values)
        return equal == (self.operator == "=")

    def refuse_percent(self, shares: Collection[str]) -> None:
        """Refuse a number above 1 for one of these names, whose values are shares.

        Raises
        ------
        BadCondition
            With the number that was meant.
        """
        for text in self.values if self.name in shares else ():
            if (number := _number(text)) is not None and number > 1:
                said = f"{self.name}{self.operator}"
                raise BadCondition(
                    f"{said}{text}: {self.name} is a share from 0 to 1; write "
                    f"{said}{number / 100:g}."
                )

    def refuse_no_class(self, values: Sequence[Any]) -> None:
        """Refuse a name that is of no class, given what the rows have for the field.

        Raises
        ------
        BadCondition
            With the nearest name.
        """
        labels = [value for value in values if isinstance(value, Label)]
        for text in self.values if labels else ():
            wanted = _number(text) is None and text.lower() not in ("null", "none", "")
            if wanted and all(place_of(text, label.names) is None for label in labels):
                raise BadCondition(_no_class(f"{self.name}{self.operator}{text}", text, labels))


Alternatives = tuple[tuple[Condition, ...], ...]
"""Of which one must hold with all its conditions."""


@dataclass(frozen=True)
class Where:
    """Words that must all hold; without any, every run does.

    Written out as alternatives of the whole, n words with an `or` would be 2^n of them.
    """

    words: tuple[Alternatives, ...] = ()

    @property
    def conditions(self) -> list[Condition]:
        """All comparisons, of whatever word."""
        return [one for word in self.words for conditions in word for one in conditions]

    def select(self, rows: Sequence[Row]) -> list[bool]:
        """Say of each row whether the conditions hold.

        Raises
        ------
        BadField
            For a name that no row has, or that may mean several fields.
        BadCondition
            For the name of a class that is none of any row's data set.
        """
        keys = list(dict.fromkeys(key for row in rows for key in row))
        every = self.conditions
        full = {one.name: full_name(one.name, keys) for one in every} if rows else {}
        for one in every if rows else ():
            one.refuse_no_class([row.get(full[one.name]) for row in rows])
        return [
            all(
                any(
                    all(condition.holds(row.get(full[condition.name])) for condition in conditions)
                    for conditions in word
                )
                for word in self.words
            )
            for row in rows
        ]


def parse(words: Sequence[str]) -> Where:
    """Read conditions; if there are several words, each must hold.

    Raises
    ------
    BadCondition
        For what is no condition, or an order with something that is no number.

    Examples
    --------
    >>> where = parse(["defense=drop,median", "DPR<0.3 or attack=none"])
    >>> where.select([{"defense": "drop", "DPR": 0.1, "attack": "dba"}])
    [True]
    """
    return Where(tuple(map(_alternatives, words)))


def _alternatives(word: str) -> Alternatives:
    return tuple(
        tuple(_condition(part) for part in _split(option, "and")) for option in _split(word, "or")
    )


def _split(text: str, operator: str) -> list[str]:
    """Split a text at an operator, in capitals or not, that stands outside of quotes.

    Quotes are such where a value begins: an apostrophe within one is none.
    """
    parts, start = list[str](), 0
    quoted = r"[=<>,[{:]\s*(?:'[^']*'|\"[^\"]*\")"
    for found in re.finditer(rf"{quoted}|(\s{operator}(?:\s|$))", text, re.IGNORECASE):
        if found[1]:
            parts.append(text[start : found.start()])
            start = found.end()
    if parts and not text[start:].strip():
        raise BadCondition(
            f"{json.dumps(text)}: a condition must follow the {operator}; if it is part of the "
            "value, put that in quotes."
        )
    return [*parts, text[start:]]


def _condition(text: str) -> Condition:
    found = _CONDITION.fullmatch(text)
    if found is None:
        raise BadCondition(
            f"{json.dumps(text)}: is no condition; write NAME=VALUE, or one of "
            "!= < <= > >= for the =."
        )
    name, operator, value = found.groups()
    values = tuple(
        part[1:-1] if _QUOTED.fullmatch(part) else part for part in between_commas(value)
    )
    if operator in _ORDERS and (len(values) != 1 or _number(values[0]) is None):
        raise BadCondition(f"{json.dumps(text)}: {operator} needs a number to compare with.")
    return Condition(name, "=" if operator == "==" else operator, values)


def full_name(name: str, keys: Sequence[str]) -> str:
    """Complete a name that leaves out its first tables.

    Raises
    ------
    BadField
        If none of the keys is meant, or several are.

    Examples
    --------
    >>> full_name("lr", ["seed", "client.lr"])
    'client.lr'
    """
    near = [key for key in keys if key.endswith("." + name)]
    if name in keys:
        return name
    if not near:
        hint = suggest(name, [*keys, *(key.rsplit(".", 1)[-1] for key in keys)])
        raise BadField(f"{name} is a field of none of the runs.{hint}")
    if len(near) > 1:
        raise BadField(f"{name} is ambiguous: write {' or '.join(sorted(near))}.")
    return near[0]


def _no_class(said: str, text: str, labels: Sequence[Label]) -> str:
    """Return the sentence for a name that no class of some data sets has."""
    datasets = dict.fromkeys(label.dataset for label in labels)
    hint = suggest(text, {name for label in labels for name in label.names})
    nameless = dict.fromkeys(label.dataset for label in labels if not label.names)
    if not hint and nameless:
        hint = f" What those of {', '.join(nameless)} are called is not known; give a number."
    if not hint:
        names = [name for name in labels[0].names if _number(name) is None]
        shown = f" and {', '.join(names[:10])}{', ...' if names[10:] else ''}" if names else ""
        hint = f" Allowed are numbers{shown}."
    known = "known class" if nameless else "class"
    return f"{said}: is no {known} of {', '.join(datasets)}.{hint}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def _same(value: Any, text: str) -> bool:
    if value is None or isinstance(value, bool):
        return (
            text.lower() in {None: ("null", "none", ""), True: ("true",), False: ("false",)}[value]
        )
    number = _number(text)
    if number is not None and _number(value) == number:
        return True
    if isinstance(value, Label):
        return number is None and value.is_called(text)
    said = value if isinstance(value, str) else json.dumps(value, default=str)
    return said in (text, _spaced(text))


def _spaced(text: str) -> str:
    """Return a list as JSON writes it, whatever spaces it has; other texts as they are."""
    if not text.startswith("["):
        return text
    try:
        return json.dumps(parse_json(text))
    except ValueError:
        return text
