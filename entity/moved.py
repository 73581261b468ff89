"""Where names of earlier versions are now, for scripts and Flower apps that were written then.

`entity.loops`, `entity.params` and the others of `MODULES` can still be imported, and packages that
lost a name still have it. Nothing in the package itself uses this.
"""

import importlib
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from types import ModuleType
from typing import Any

_DEFENSES = """
    bulyan crfl deepsight drop droplet finetuning flame flare flip fltrust foolsgold freqfed krum
    median multi_metrics norm_clipping random_aggregation rflbat rlr trimmed_mean undefended
"""
_ATTACKS = """
    alie badnets chameleon constrain_and_scale ipm min_max model_replacement neurotoxin pgd
    sign_flip
"""
_POISONS = "a3fl blended dba edge_case iba label_flip pixel"

MODULES: dict[str, tuple[str, ...]] = {
    **{f"entity.server.{name}": (f"entity.defenses.{name}",) for name in _DEFENSES.split()},
    **{f"entity.client.{name}": (f"entity.attacks.{name}",) for name in _ATTACKS.split()},
    **{f"entity.dataset.poisons.{name}": (f"entity.poisons.{name}",) for name in _POISONS.split()},
    "entity.client.roster": ("entity.setup.roster",),
    "entity.dataset.poisoning": ("entity.client.poisoning",),
    "entity.dataset.poisons": ("entity.poisons", "entity.client.poison"),
    "entity.dataset.triggers": ("entity.client.triggers",),
    "entity.server.geometric_median": ("entity.defenses.rfa",),
    "entity.assembly": ("entity.setup.assembly",),
    "entity.checkpoint": ("entity.record.checkpoint",),
    "entity.loops": ("entity.training",),
    "entity.params": ("entity.updates", "entity.layout"),
    "entity.resolve": ("entity.setup.resolve", "entity.setup.identity"),
    "entity.resume": ("entity.setup.resume",),
    "entity.schema": ("entity.config.schema",),
    "entity.store": ("entity.results.store",),
    "entity.dataset.backdoorable": ("entity.original",),
}
"""Modules that are gone, and those that have their names now."""

PACKAGES: dict[str, tuple[str, ...]] = {
    "entity.client": ("entity.attacks", "entity.setup.roster"),
    "entity.config": ("entity.config.fields",),
    "entity.dataset": (
        "entity.original",
        "entity.poisons",
        "entity.client.poison",
        "entity.client.poisoning",
        "entity.client.triggers",
    ),
    "entity.record": (
        "entity.record.directory",
        "entity.record.json_files",
        "entity.record.lock",
        "entity.record.rounds",
        "entity.record.summary",
    ),
    "entity.server": ("entity.defenses",),
    "entity.server.contract": ("entity.server.averaging", "entity.updates"),
}
"""Packages and modules that are still there, and those that took names from them."""


def names_of(package: str) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package or module that lost names."""

    def find(name: str) -> Any:
        if not name.startswith("__"):
            for home in PACKAGES[package]:
                if name in vars(module := importlib.import_module(home)):
                    return vars(module)[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return find


class Moved(MetaPathFinder, Loader):
    """Finder and loader of the modules that are gone; asked only where no other finds one."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Return how to load one of `MODULES`; None for any other."""
        if name not in MODULES:
            return None
        return spec_from_loader(
            name, self, is_package=any(other.startswith(f"{name}.") for other in MODULES)
        )

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Leave the making of a module to Python."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Fill a module with the names of those that have them now."""
        for home in MODULES[module.__name__]:
            found = vars(importlib.import_module(home))
            module.__dict__.update({k: v for k, v in found.items() if not k.startswith("__")})


def install() -> None:
    """Let the modules that are gone be imported."""
    sys.meta_path.append(Moved())
