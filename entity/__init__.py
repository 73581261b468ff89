"""DROP, and the laboratory of backdoor attacks and defenses in federated learning around it.

    import entity
    result = entity.run("mnist5k/drop", rounds=20, DPR=0.25, seed=3)
    result.frame(), result.plot()
    entity.sweep("mnist5k/drop", defense=["drop", "flame"], seed=range(3))
    entity.results("runs").frame()

The package is imported in a moment: what needs PyTorch is, once it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entity.moved import install as _install

if TYPE_CHECKING:
    from entity.api.run import Result, open_run, run
    from entity.api.runs import Runs, results
    from entity.api.sweep import Sweep, sweep
    from entity.config.schema import CannotGoOn, ConfigError
    from entity.setup.load import load

_install()

__version__ = "1.0.0"

__all__ = [
    "CannotGoOn",
    "ConfigError",
    "Result",
    "Runs",
    "Sweep",
    "__version__",
    "load",
    "open_run",
    "results",
    "run",
    "sweep",
]

_HOMES = {
    "CannotGoOn": "entity.config.schema",
    "ConfigError": "entity.config.schema",
    "Result": "entity.api.run",
    "Runs": "entity.api.runs",
    "Sweep": "entity.api.sweep",
    "load": "entity.setup.load",
    "open_run": "entity.api.run",
    "run": "entity.api.run",
}
_PACKAGES = ("results", "sweep")
"""Those that can be called: `entity.callables`."""


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return import_module(f"entity.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
