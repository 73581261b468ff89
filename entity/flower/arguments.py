"""What the strategy may be given: each argument that is not allowed is refused in one sentence."""

import operator
from pathlib import Path
from typing import Any, SupportsIndex, cast

from entity.config.paths import user_path
from entity.config.schema import CannotGoOn, ConfigError, show
from entity.deployment.metrics import MetricsFile
from entity.flower.journal import Journal
from entity.server import Server
from entity.server.votes import no_voters


def check(
    server: Server[Any],
    *,
    nodes_per_round: int | None,
    min_nodes: int | None,
    min_survivors: int,
    trust_sample_counts: bool,
    on_round: object,
) -> None:
    """Refuse what a strategy cannot be made of: see `entity.flower.RobustStrategy`.

    Raises
    ------
    ConfigError
        If an argument is not allowed, or the settings contradict each other.
    """
    if not isinstance(cast("object", server), Server):
        raise ConfigError(f"server = {show(server)}: allowed is a defense (entity.server.Server).")
    needs = server.needs(server.args)
    if needs.client_votes:
        raise no_voters(f"server = {type(server).__name__}")
    for name, value in (("nodes_per_round", nodes_per_round), ("min_nodes", min_nodes)):
        if value is not None:
            _refuse_unless_whole(name, value, 1)
    _refuse_unless_whole("min_survivors", min_survivors, 1)
    for name, value in (("nodes_per_round", nodes_per_round), ("min_nodes", min_nodes)):
        if value is not None and value < min_survivors:
            raise ConfigError(
                f"min_survivors = {min_survivors}: allowed is at most {name}, which is "
                f"{value}; with so few nodes no round would change the model."
            )
    if not isinstance(cast("object", trust_sample_counts), bool):
        raise ConfigError(
            f"trust_sample_counts = {show(trust_sample_counts)}: allowed is True or False."
        )
    if not callable(on_round):
        raise ConfigError(f"on_round = {show(on_round)}: allowed is a function of a report.")
    if server.resources.averaging.weighting == "samples" and not trust_sample_counts:
        raise ConfigError(
            'weighting = "samples": nodes report their own numbers of samples, and an attacker '
            'any; use "uniform", or set trust_sample_counts where all nodes are yours.'
        )


def check_start(server: Server[Any], num_rounds: int, timeout: float, evaluate_fn: object) -> None:
    """Refuse what a run of a strategy cannot be started with.

    Raises
    ------
    ConfigError
        If an argument is not allowed.
    """
    _refuse_unless_whole("num_rounds", num_rounds, 0)
    planned = server.resources.rounds
    if planned not in (None, num_rounds) and server.looks_ahead(server.args):
        raise ConfigError(
            f"num_rounds = {num_rounds}: what {type(server).__name__} does depends on the number "
            f"of rounds, with these settings, and its Resources have rounds = {show(planned)}."
        )
    if not isinstance(cast("object", timeout), int | float) or not timeout >= 0:
        raise ConfigError(f"timeout = {show(timeout)}: allowed is a number from 0, of seconds.")
    if evaluate_fn is not None and not callable(evaluate_fn):
        raise ConfigError(
            f"evaluate_fn = {show(evaluate_fn)}: allowed is a function of a round's number and "
            "the global model, or None."
        )


def journal(state_folder: object) -> Journal:
    """Return the journal of a folder that can be written, or of none.

    Raises
    ------
    ConfigError
        If it is no path, or the folder cannot be written.
    """
    if state_folder is None:
        return Journal(None)
    found = Journal(_path("state_folder", state_folder, "folder"))
    try:
        found.check()
    except (ConfigError, CannotGoOn) as error:
        raise ConfigError(f"state_folder = {error}") from error
    return found


def metrics_file(path: object) -> MetricsFile:
    """Return the writer of a file of metrics that can be written, or of none.

    Raises
    ------
    ConfigError
        If it is no path, or the file cannot be written.
    """
    if path is None:
        return MetricsFile(None)
    place = _path("metrics_file", path, "file")
    try:
        return MetricsFile(place)
    except (ConfigError, CannotGoOn) as error:
        raise ConfigError(f"metrics_file = {error}") from error


def _path(name: str, value: object, what: str) -> Path:
    if not isinstance(value, str | Path) or value == "" or "\0" in str(value):
        raise ConfigError(f"{name} = {show(value)}: allowed is the path of a {what}, or None.")
    return user_path(value)


def _refuse_unless_whole(name: str, value: object, least: int) -> None:
    is_number = isinstance(value, SupportsIndex) and not isinstance(value, bool)
    if not is_number or operator.index(cast("SupportsIndex", value)) < least:
        raise ConfigError(f"{name} = {show(value)}: allowed is a whole number from {least}.")
