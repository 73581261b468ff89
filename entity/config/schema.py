"""Strict reading of dataclasses from JSON, YAML or the command line.

Unknown keys, wrong types and values out of range raise `ConfigError`, whose text is one sentence
that names the field, the value and what is allowed. (The loaders of the libraries we looked at
drop unknown keys and cast 1.9 to 1.)

Allowed values are part of a field's type: `Literal["iid", "dirichlet"]`, `Annotated[float,
Range(0, 1)]`, `int | None`. A field's docstring, the string below it, is its documentation on
the command line.
"""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import json
import math
import sys
import textwrap
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from entity.reading import PRINTABLE_DIGITS, parse_json

T = TypeVar("T")


class ConfigError(ValueError):
    r"""A setting that cannot be used; its text is one sentence for the user, on one line.

    Examples
    --------
    >>> print(ConfigError("axes.a\nb: is empty."))
    axes.a\nb: is empty.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))


class CannotGoOn(RuntimeError):
    """What ends a run or a command though its settings are right: a full disk, dead workers.

    Its text is one sentence for the user, on one line.
    """

    def __init__(self, text: str) -> None:
        super().__init__(_one_line(text))


def _one_line(text: str) -> str:
    """Escape the line ends and halves of characters that names from a file may hold."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


@dataclass(frozen=True)
class Range:
    """Bounds of a number, part of its type: `Annotated[float, Range(0, 1)]`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Exclude `low` itself."""

    def __contains__(self, value: float) -> bool:
        return (value > self.low if self.above else value >= self.low) and value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'above' if self.above else 'at least'} {self.low:g}"
        return f"{'above' if self.above else 'from'} {self.low:g} to {self.high:g}"


Fraction = Annotated[float, Range(0, 1)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]


def load(cls: type[T], data: object, where: str = "") -> T:
    """Build a dataclass from a mapping, strictly.

    Parameters
    ----------
    cls
        The dataclass; its fields may be nested dataclasses.
    data
        What JSON or YAML gave.
    where
        Dotted path of `data` in the whole config, for messages.

    Raises
    ------
    ConfigError
        For a key that is unknown or missing, and for a value of the wrong type or out of range.

    Examples
    --------
    >>> @dataclass
    ... class Point:
    ...     x: Fraction
    >>> load(Point, {"x": 1.5})
    Traceback (most recent call last):
    entity.config.schema.ConfigError: x = 1.5: allowed is a number from 0 to 1.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where or 'the config'} = {show(data)}: expected a table of fields.")
    types_by_name = hints(cls)
    for key in data:
        if key not in types_by_name:
            name = key_text(key)
            raise ConfigError(unknown(join(where, name), name, types_by_name))
    values: dict[str, Any] = {}
    for item in dataclasses.fields(cls):  # type: ignore[arg-type]
        path = join(where, item.name)
        if item.name in data:
            values[item.name] = convert(types_by_name[item.name], data[item.name], path)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{path} is missing: it needs {describe(types_by_name[item.name])}.")
    return cls(**values)


def convert(kind: Any, value: Any, where: str) -> Any:
    """Check one value against a field's type and return it in that type.

    Parameters
    ----------
    kind
        The type, with its `Range` if it has one.
    value
        What JSON or YAML gave.
    where
        Dotted path of the field, for messages.

    Raises
    ------
    ConfigError
        If the value does not belong to the type.
    """
    origin = get_origin(kind)
    if origin is Annotated:
        base, *limits = get_args(kind)
        if _accepts(base, value, where):
            result = convert(base, value, where)
            if all(result in limit for limit in limits if isinstance(limit, Range)):
                return result
        raise _refusal(kind, value, where)
    if origin in (Union, types.UnionType):
        return _convert_union(get_args(kind), value, where, kind)
    if dataclasses.is_dataclass(kind):
        return load(kind, value, where)  # type: ignore[arg-type]
    if origin is Literal:
        for option in get_args(kind):  # 1.0 means 1, and true does not
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        options = [str(option) for option in get_args(kind)]
        hint = suggest(value, options) if isinstance(value, str) else ""
        raise ConfigError(f"{where} = {show(value)}: allowed is {describe(kind)}.{hint}")
    if origin is tuple:
        if isinstance(value, list | tuple):
            return tuple(convert(get_args(kind)[0], item, where) for item in value)
    elif kind is Any or ((kind is dict or origin is dict) and isinstance(value, dict)):
        return value
    elif kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) <= sys.float_info.max:  # false for NaN, infinity, and 400 digits
            return float(value)
    elif kind is int and isinstance(value, int | float) and not isinstance(value, bool):
        # 5e6 is how the original writes a budget; torch counts in 64 bits.
        if abs(value) < 2**63 and value == int(value):
            return int(value)
    elif kind in (bool, str) and isinstance(value, kind):
        return value
    raise _refusal(kind, value, where)


def _refusal(kind: Any, value: Any, where: str) -> ConfigError:
    """Say what is allowed; of a number that is too large for torch, where numbers end."""
    ends = ""
    large = isinstance(value, int | float) and 2**63 <= abs(value) < math.inf
    if large and "whole" in describe(kind):
        ends = "; whole numbers end below 2^63"
    return ConfigError(f"{where} = {show(value)}: allowed is {describe(kind)}{ends}.")


def _convert_union(options: tuple[Any, ...], value: Any, where: str, kind: Any) -> Any:
    if value is None and type(None) in options:
        return None
    options = tuple(option for option in options if option is not type(None))
    if len(options) == 1:
        try:
            return convert(options[0], value, where)
        except ConfigError as error:
            if dataclasses.is_dataclass(options[0]):
                raise
            raise _refusal(kind, value, where) from error
    for option in options:
        try:
            return convert(option, value, where)
        except ConfigError:
            continue
    raise _refusal(kind, value, where)


def parse_text(kind: Any, text: str, where: str) -> Any:
    """Read a value given on the command line, as JSON where it is JSON and else as a string.

    Parameters
    ----------
    kind
        The field's type.
    text
        What stands on the command line; none, null, true and false in any case.
    where
        Dotted path of the field, for messages.

    Examples
    --------
    >>> parse_text(float, "0.25", "DPR"), parse_text(int | None, "none", "victim_class")
    (0.25, None)
    """
    value = read_text(text)
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # .5 and +1 are numbers, though not in JSON
            value = float(text) if _accepts(kind, float(text), where) else value
    try:
        return convert(kind, value, where)
    except ConfigError:
        # "7" or "none" may be meant as a word; the message of the first reading is the better one.
        if isinstance(value, str | dict | list) or not _accepts(kind, text, where):
            raise
        return convert(kind, text, where)


def read_text(text: str) -> Any:
    """Return what a text on the command line means where no type is known.

    Examples
    --------
    >>> read_text("0.25"), read_text("None"), read_text("krum"), read_text('{"f": 2}')
    (0.25, None, 'krum', {'f': 2})
    """
    words = {"none": None, "null": None, "true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return parse_json(text, most_digits=PRINTABLE_DIGITS)
    except ValueError:
        return text


def _accepts(kind: Any, value: Any, where: str) -> bool:
    try:
        convert(kind, value, where)
    except ConfigError:
        return False
    return True


def dump(value: Any) -> Any:
    """Turn dataclasses into what JSON can hold, fields in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: dump(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [dump(item) for item in value]
    return value


def describe(kind: Any) -> str:
    """Say in words what a type allows."""
    origin = get_origin(kind)
    if origin is Annotated:
        base, *limits = get_args(kind)
        return " ".join([describe(base), *(str(limit) for limit in limits)])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in get_args(kind))
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in get_args(kind))
    if origin is tuple:
        return f"a list of {_many(get_args(kind)[0])}"
    if dataclasses.is_dataclass(kind):
        return "a table of fields"
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a text",
        type(None): "null",
        dict: "a table of fields",
    }
    return names.get(origin or kind, "any value")


def _many(kind: Any) -> str:
    """Say in words what several of a type are: `whole numbers at least 0`."""
    if get_origin(kind) is Annotated:
        base, *limits = get_args(kind)
        return " ".join([_many(base), *(str(limit) for limit in limits)])
    if get_origin(kind) is tuple:
        return f"lists of {_many(get_args(kind)[0])}"
    names: dict[Any, str] = {int: "whole numbers", float: "numbers", str: "texts"}
    return names.get(kind) or f"({describe(kind)})"


def unknown(path: str, key: str, known: Iterable[str]) -> str:
    """Return the sentence for a name that does not exist, with the nearest one that does.

    Parameters
    ----------
    path
        The whole name, dotted, for the sentence.
    key
        What is to be compared with the known names.
    known
        Names that exist.
    """
    known = list(known)
    hint = suggest(key, known) or f" Allowed here: {', '.join(known) or 'nothing'}."
    return f"{path} is unknown.{hint}"


def suggest(word: str, known: Iterable[str]) -> str:
    """Return " Did you mean X?" for the nearest known word, or nothing."""
    by_lower = {option.lower(): option for option in known}
    near = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return f" Did you mean {by_lower[near[0]]}?" if near else ""


def show(value: Any) -> str:
    """Return a value as the user wrote it, shortened."""
    try:
        text = json.dumps(value, default=str, skipkeys=True)  # YAML has dates as keys
    except ValueError:  # Python prints at most 4300 digits; YAML reads more in hexadecimal
        text = "a number too long to print"
    return text if len(text) <= 60 else text[:57] + "..."


def key_text(key: object) -> str:
    """Return the key of a table as text; YAML has numbers as keys, too, of any length."""
    return key if isinstance(key, str) else show(key)


def join(where: str, name: str) -> str:
    """Append a name to a dotted path."""
    return f"{where}.{name}" if where else name


def flatten(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Walk the leaves of nested objects as (dotted path, value); lists are leaves.

    An empty object has none: a defense without arguments says nothing of them.

    Examples
    --------
    >>> list(flatten({"model": "cnn", "server": {"defense": {"type": "drop"}}}))
    [('model', 'cnn'), ('server.defense.type', 'drop')]
    """
    for key, value in data.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@cache
def hints(cls: Any) -> dict[str, Any]:
    """Return the types of a dataclass's fields, with their annotations, in order."""
    found = get_type_hints(cls, include_extras=True)
    return {item.name: found[item.name] for item in dataclasses.fields(cls)}


@cache
def docs(cls: type) -> dict[str, str]:
    """Return the docstring below each field of a dataclass, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for item, below in zip(body.body, body.body[1:], strict=False):
            if (
                isinstance(item, ast.AnnAssign)
                and isinstance(item.target, ast.Name)
                and isinstance(below, ast.Expr)
                and isinstance(below.value, ast.Constant)
                and isinstance(below.value.value, str)
            ):
                found[item.target.id] = inspect.cleandoc(below.value.value)
    return found
