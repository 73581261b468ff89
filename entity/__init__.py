"""DROP, and the laboratory of backdoor attacks and defenses in federated learning around it.

    import entity
    result = entity.run(entity.load("mnist5k/drop", DPR=0.25), "runs/mine")

The package is imported in a moment: what needs PyTorch is, once it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from entity.moved import install as _install

if TYPE_CHECKING:
    from entity.config.schema import ConfigError
    from entity.experiment import Result, run
    from entity.setup.load import load

_install()

__version__ = "1.0.0"

__all__ = ["ConfigError", "Result", "__version__", "load", "run"]

_HOMES = {
    "ConfigError": "entity.config.schema",
    "Result": "entity.experiment",
    "load": "entity.setup.load",
    "run": "entity.experiment",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
