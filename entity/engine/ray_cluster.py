"""Ray itself: whether it is there, and how a process joins a cluster or starts one."""

import importlib
import logging
import os
import secrets
import socket
import sys
from typing import Any

from entity.config.schema import ConfigError


def require_ray(option: str, address: str | None) -> Any:
    """Return the module of Ray.

    Ray listens on the machine's own address, and whoever reaches it may run code. So a Ray that
    we start ourselves (without an address) asks for a token that only this process and its
    workers know, unless the environment says how to authenticate.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"):
        os.environ.setdefault(name, "0")
    if address is None and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        os.environ["RAY_AUTH_MODE"] = "token"  # read at the import
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError(
            f"{option}: needs Ray, which is not installed; `pip install -e '.[ray]'` brings it."
        ) from error


def require_cluster(address: str, option: str = "settings.ray_address") -> None:
    """Refuse an address, HOST:PORT, where nobody listens; Ray itself would try for minutes.

    Raises
    ------
    ConfigError
        If there is nobody.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise ConfigError(
            f"{option} = {address}: no cluster can be joined ({error.strerror or error})."
        ) from error


def join(ray: Any, address: str | None, cores: int, option: str = "settings.ray_address") -> bool:
    """Connect to a cluster, or start Ray on this machine with some cores.

    Parameters
    ----------
    ray
        Its module.
    address
        HOST:PORT, or auto; None starts Ray here.
    cores
        For the Ray that is started.
    option
        The setting that chose the cluster, as the user knows it.

    Returns
    -------
    bool
        Whether the caller has to disconnect or shut it down; not so if the process was connected
        before.

    Raises
    ------
    ConfigError
        If there is no cluster at the address, or Ray cannot start.
    """
    if ray.is_initialized():
        return False
    own = {} if address else {"num_cpus": cores, "include_dashboard": False}
    quiet = {"log_to_driver": False, "configure_logging": False, "logging_level": logging.ERROR}
    try:
        ray.init(address or "local", **quiet, **own)
    except Exception as error:  # Ray raises many kinds, and a bare one where it starts too slowly
        said = " ".join(str(error).split())[:200]
        where = f"{option} = {address}: no cluster can be joined"
        raise ConfigError(
            f"{where if address else 'settings.engine = ray: Ray does not start'} ({said})."
        ) from error
    return True


def shortage(ray: Any, cores: int, gpus: int) -> str:
    """Say in a few words that no node is large enough for an actor; "" where one is.

    Such an actor waits for a node that joins later, which may be never.

    Parameters
    ----------
    ray
        Its module, connected.
    cores, gpus
        What the actor has to have, all of it on one node.
    """
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= cores and node.get("GPU", 0) >= gpus for node in nodes):
        return ""
    with_card = [node for node in nodes if node.get("GPU", 0) >= gpus]
    most = max((int(node.get("CPU", 0)) for node in with_card), default=0)
    if gpus and not with_card:
        return "no node has a card"
    return f"no node {'with a card ' if gpus else ''}has {cores} cores, the largest has {most}"
