"""`help(FlameArgs)`: the fields of a settings class, with the docstrings that stand below them.

Python keeps no docstring of a field, so it is read from the source, but only when somebody asks
for help: importing the package reads nothing.
"""

import dataclasses
import inspect
import textwrap

from entity.config.schema import describe, docs, hints, show


def show_fields(cls: type) -> None:
    """Let the docstring of a settings dataclass end with its fields."""
    text = vars(cls).get("__doc__")
    if not isinstance(text, _Docstring):  # several methods may share their settings
        cls.__doc__ = _Docstring(text or "")  # type: ignore[assignment]


class _Docstring:
    """A docstring that is written when it is read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __get__(self, instance: object, owner: type) -> str:
        return described(owner, self.text)


def described(cls: type, text: str) -> str:
    """Return a docstring and, below it, the fields of a dataclass by the class that has them.

    Parameters
    ----------
    cls
        The dataclass; the fields of its bases come after its own.
    text
        Its docstring. Returned as it is where there is no source to read.
    """
    try:
        found = docs(cls)
    except OSError:
        return text
    types, items = hints(cls), {item.name: item for item in dataclasses.fields(cls)}
    parts, seen = [inspect.cleandoc(text)], set[str]()
    for base in cls.__mro__:
        own = [name for name in vars(base).get("__annotations__", {}) if name in items]
        fresh = [name for name in own if name not in seen]
        seen.update(fresh)
        if fresh:
            title = "Fields" if base is cls else f"Fields of {base.__name__}"
            entries = (_entry(items[name], types[name], found.get(name, "")) for name in fresh)
            parts.append("\n".join([title, "-" * len(title), *entries]))
    return "\n\n".join(parts) + "\n"


def _entry(item: "dataclasses.Field[object]", kind: object, doc: str) -> str:
    line = f"{item.name} : {describe(kind)}"
    if item.default is not dataclasses.MISSING:
        line += f", default {show(item.default)}"
    return "\n".join([line, *([textwrap.indent(doc, "    ")] if doc else [])])
