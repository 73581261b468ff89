"""What there is to choose from: every registry as rows of name, summary, paper and needs."""

from collections.abc import Callable
from typing import Any

from entity.attacks import ATTACKS
from entity.config.schema import ConfigError, unknown
from entity.dataset import DATASETS
from entity.dataset.imagefolder import PREFIX, SUMMARY
from entity.defenses import ALIASES, DEFENSES
from entity.models import MODELS
from entity.poisons import POISONS

Row = dict[str, str]


def _defenses() -> list[Row]:
    aliases: dict[str, list[str]] = {}
    for alias, name in ALIASES.items():
        aliases.setdefault(name, []).append(alias)
    return [
        {
            "name": name,
            "summary": server.summary,
            "paper": server.paper,
            "needs": str(server.needs(server.hyperparameters())),
            "streams": server.streaming,
            "aliases": ", ".join(aliases.get(name, [])),
        }
        for name, server in DEFENSES.items()
    ]


def _entries(registry: dict[str, Any]) -> Callable[[], list[Row]]:
    return lambda: [
        {"name": name, "summary": entry.summary, "paper": entry.paper}
        for name, entry in registry.items()
    ]


def _datasets() -> list[Row]:
    own = {"name": f"{PREFIX}NAME", "summary": SUMMARY, "paper": ""}
    return [*_entries(DATASETS)(), own]


CATALOGUE: dict[str, Callable[[], list[Row]]] = {
    "defenses": _defenses,
    "attacks": _entries(ATTACKS),
    "poisons": _entries(POISONS),
    "datasets": _datasets,
    "models": _entries(MODELS),
}


def rows(kind: str) -> list[Row]:
    """Return one registry, in its order.

    Raises
    ------
    ConfigError
        If there is no such registry.
    """
    if kind not in CATALOGUE:
        raise ConfigError(unknown(f"drop list {kind}", kind, CATALOGUE))
    return CATALOGUE[kind]()
