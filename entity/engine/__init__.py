"""Engines: where the selected clients of a round train."""

import logging
from collections.abc import Callable

from entity.config.fields import SettingsConfig
from entity.config.schema import ConfigError
from entity.engine import main_module
from entity.engine.compiler import without_compiler
from entity.engine.contract import Engine, NoWorkers
from entity.engine.inline import Inline
from entity.engine.local_training import cores
from entity.engine.pool import Pool
from entity.engine.ray_actors import RayActors
from entity.engine.ray_cluster import require_cluster, require_ray
from entity.engine.vectorized import Vectorized
from entity.setup.roster import Roster

log = logging.getLogger("entity")

__all__ = [
    "ENGINES",
    "Engine",
    "Inline",
    "NoWorkers",
    "Pool",
    "RayActors",
    "Vectorized",
    "check_engine",
    "choose_engine",
    "cores",
    "open_engine",
    "worker_count",
]


def worker_count(settings: SettingsConfig) -> int:
    """Return how many worker processes a pool gets."""
    return min(settings.workers or cores(), settings.num_parallel_max)


ENGINES: dict[str, Callable[[Roster], Engine]] = {
    "inline": Inline,
    "pool": lambda roster: Pool(roster, worker_count(roster.config.settings)).started(),
    "ray": lambda roster: RayActors(roster, worker_count(roster.config.settings)),
    "vectorized": Vectorized,
}


def check_engine(settings: SettingsConfig) -> None:
    """Refuse an engine that cannot start here, before any data is read.

    Raises
    ------
    ConfigError
        If a package is missing, there is no cluster, or this process can start no workers.
    """
    if settings.engine == "pool" and (why := main_module.obstacle()):
        raise ConfigError(
            f"settings.engine = pool: workers cannot be started, as {why}; mend that, or use "
            "inline or auto."
        )
    if settings.engine == "ray":
        require_ray("settings.engine = ray", settings.ray_address)
        if settings.ray_address not in (None, "auto"):
            require_cluster(settings.ray_address)


def choose_engine(roster: Roster) -> str:
    """Return the engine that `auto` means: the pool on a CPU with more than one core.

    Where no workers can be started, or would not know what the main module defines as it is no
    file (a notebook), it means inline.
    """
    settings = roster.config.settings
    if settings.engine != "auto":
        return settings.engine
    small = roster.config.federation.round_size < 2
    alone = worker_count(settings) < 2 or roster.device.type != "cpu"
    if (small or alone) and not settings.parallel_client_training:
        return "inline"
    if why := main_module.obstacle() or main_module.unknown_names():
        log.info("engine auto: one client trains after another, as %s", why)
        return "inline"
    return "pool"


def open_engine(roster: Roster) -> Engine:
    """Start the configured engine; use it as a context manager.

    Where `auto` has chosen workers and they do not start, clients train in this process instead.

    Raises
    ------
    NoWorkers
        If the workers that were asked for do not start.
    """
    roster = without_compiler(roster)
    try:
        return ENGINES[choose_engine(roster)](roster)
    except NoWorkers as error:
        if roster.config.settings.engine != "auto":
            raise
        log.warning("engine auto: one client trains after another, as %s", error)
        return Inline(roster)
