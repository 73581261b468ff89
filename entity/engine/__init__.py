"""Engines: where the selected clients of a round train."""

import os
from collections.abc import Callable

from entity.config.fields import SettingsConfig
from entity.engine.compiler import without_compiler
from entity.engine.contract import Engine
from entity.engine.inline import Inline
from entity.engine.pool import Pool
from entity.engine.ray_actors import RayActors
from entity.engine.ray_cluster import require_cluster, require_ray
from entity.engine.vectorized import Vectorized
from entity.setup.roster import Roster

__all__ = [
    "ENGINES",
    "Engine",
    "Inline",
    "Pool",
    "RayActors",
    "Vectorized",
    "check_engine",
    "choose_engine",
    "cores",
    "open_engine",
    "worker_count",
]


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(settings: SettingsConfig) -> int:
    """Return how many worker processes a pool gets."""
    return min(settings.workers or cores(), settings.num_parallel_max)


ENGINES: dict[str, Callable[[Roster], Engine]] = {
    "inline": Inline,
    "pool": lambda roster: Pool(roster, worker_count(roster.config.settings)),
    "ray": lambda roster: RayActors(roster, worker_count(roster.config.settings)),
    "vectorized": Vectorized,
}


def check_engine(settings: SettingsConfig) -> None:
    """Refuse an engine that cannot start here, before any data is read.

    Raises
    ------
    ConfigError
        If a package is missing, or there is no cluster.
    """
    if settings.engine == "ray":
        require_ray("settings.engine = ray", settings.ray_address)
        if settings.ray_address not in (None, "auto"):
            require_cluster(settings.ray_address)


def choose_engine(roster: Roster) -> str:
    """Return the engine that `auto` means: the pool on a CPU with more than one core."""
    settings = roster.config.settings
    if settings.engine != "auto":
        return settings.engine
    if settings.parallel_client_training:
        return "pool"
    small = roster.config.federation.round_size < 2
    alone = worker_count(settings) < 2 or roster.device.type != "cpu"
    return "inline" if small or alone else "pool"


def open_engine(roster: Roster) -> Engine:
    """Start the configured engine; use it as a context manager."""
    return ENGINES[choose_engine(roster)](without_compiler(roster))
