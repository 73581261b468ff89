import sys
import types

import pytest


@pytest.fixture
def own(monkeypatch):
    """Put a function into a module of the user's; return the name that a config has for it."""

    def install(function, name="net"):
        module = types.ModuleType("own")
        setattr(module, name, function)
        monkeypatch.setitem(sys.modules, "own", module)
        return f"own:{name}"

    return install
