"""Packages that are functions, too: `entity.sweep(...)` and `import entity.sweep.grid` both work.

Once a part of it is imported, the package `entity` has the package of that name as its attribute;
so the package itself is what can be called.
"""

import inspect
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_FUNCTIONS = {"entity.sweep": "entity.api.sweep", "entity.results": "entity.api.runs"}
"""The module that has the function of a package's name."""


class CallablePackage(ModuleType):
    """A package that passes a call on to the function of its name in `entity.api`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self._function(*args, **kwargs)

    @property
    def _function(self) -> Any:
        name = self.__name__
        return getattr(import_module(_FUNCTIONS[name]), name.rpartition(".")[2])

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self._function)


def make_callable(package: str) -> None:
    """Let a package be called; it does so itself, when it is imported."""
    sys.modules[package].__class__ = CallablePackage
