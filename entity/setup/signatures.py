"""Whether the methods of somebody's own class can be called as the project calls them.

A call with other arguments fails before any line of the plugin runs, so that no traceback names it.
"""

import inspect
from collections.abc import Iterator
from typing import Any, TypeVar

from entity.config.schema import ConfigError
from entity.seeding import is_ours

Made = TypeVar("Made")
Function = Any
"""A function, a classmethod or a staticmethod, as a class holds it."""


def refuse_other_signatures(entry: type[Any]) -> None:
    """Refuse a class with a method that cannot take the arguments of the one it overrides.

    Parameters
    ----------
    entry
        A defense, an attack or a data poison.

    Raises
    ------
    ConfigError
        The end of a sentence that begins with its name.
    """
    for name, wanted in _overridable(entry):
        own = inspect.getattr_static(entry, name)
        if own is wanted or (_function(own) is not None and _takes(own, wanted)):
            continue
        if _function(own) is None:
            if callable(own):  # and how it is called is its own matter
                continue
            raise ConfigError(f"has {name} that is no method; it must be {_shown(name, wanted)}")
        kind = "a classmethod, " if isinstance(wanted, classmethod) else ""
        raise ConfigError(
            f"has {_shown(name, own)}{_place(own)}; it must be {kind}{_shown(name, wanted)}"
        )


def refuse_unfinished(made: Made, *needed: str) -> Made:
    """Return an object, once the constructor of its class has called that of the project.

    Parameters
    ----------
    made
        The object.
    needed
        Attributes that the project's constructor sets.

    Raises
    ------
    ConfigError
        If one is missing.
    """
    if all(hasattr(made, name) for name in needed):
        return made
    own = inspect.getattr_static(type(made), "__init__")
    arguments = _shown("super().__init__", _known(type(made)))
    raise ConfigError(
        f"{type(made).__name__}.__init__{_place(own)}: leaves out super().__init__; call "
        f"{arguments.replace('(self, ', '(')} in it."
    )


def _known(kind: type[Any]) -> Function:
    return next(vars(each)["__init__"] for each in kind.__mro__ if _ours_has(each, "__init__"))


def _ours_has(kind: type[Any], name: str) -> bool:
    return is_ours(kind) and name in vars(kind)


def _overridable(entry: type[Any]) -> Iterator[tuple[str, Function]]:
    """Yield the public methods of the bases that are the project's, as the nearest has them."""
    seen: set[str] = set()
    for base in entry.__mro__:
        for name, method in vars(base).items():
            public = name == "__init__" or not name.startswith("_")
            if public and name not in seen and _ours_has(base, name) and _function(method):
                seen.add(name)
                yield name, method


def _function(method: object) -> Any:
    found = method.__func__ if isinstance(method, classmethod | staticmethod) else method
    return found if inspect.isfunction(found) else None


def _takes(own: Function, wanted: Function) -> bool:
    """Whether a method can be called with all arguments of another one."""
    given = [p for p in _parameters(wanted) if p.kind is not p.KEYWORD_ONLY]
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in given):
        return True
    named = [each.name for each in _parameters(wanted) if each.kind is each.KEYWORD_ONLY]
    on_class = isinstance(wanted, classmethod)
    count = len(given) - (
        0 if isinstance(wanted, staticmethod) else 1
    )  # self and cls are no arguments
    bound = isinstance(own, classmethod) or (not isinstance(own, staticmethod) and not on_class)
    try:
        inspect.signature(_function(own)).bind(*[None] * (count + bound), **dict.fromkeys(named))
    except TypeError:
        return False
    return True


def _parameters(method: Function) -> list[inspect.Parameter]:
    return [*inspect.signature(_function(method)).parameters.values()]


def _shown(name: str, method: Function) -> str:
    """Return a method with the names of its arguments, such as `craft(self, trained)`."""
    marks = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    names = [f"{marks.get(each.kind, '')}{each.name}" for each in _parameters(method)]
    named = [each.kind is each.KEYWORD_ONLY for each in _parameters(method)]
    if any(named) and not any(each.startswith("*") and each[1] != "*" for each in names):
        names.insert(named.index(True), "*")
    return f"{name}({', '.join(names)})"


def _place(method: Function) -> str:
    """Return where a method is written: ` at FILE, line N`."""
    code = getattr(inspect.unwrap(_function(method)), "__code__", None)
    return f" at {code.co_filename}, line {code.co_firstlineno}" if code else ""
