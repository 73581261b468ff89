"""Whether what a defense returns is an answer to its round.

Anybody can write a defense. One that returns something else would fail far from its own code, or
change what is recorded without a word.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor

from entity.config.schema import ConfigError
from entity.returned import kind, like
from entity.server.contract import Server
from entity.updates import Aggregation, Updates, Verdict


def checked(server: Server[Any], updates: Updates, answer: object) -> Aggregation:
    """Return the answer of a defense, once it has what an answer must have.

    A model that is a row of the round is copied: the next round writes into that row.

    Parameters
    ----------
    server
        The defense.
    updates
        The round that it has aggregated.
    answer
        What it returned.

    Raises
    ------
    ConfigError
        If it is no `Aggregation`, its model is not of float32 in the shape of the round's, or it
        has not one verdict for each client in their order.
    """
    method = f"{type(server).__name__}.aggregate"
    if not isinstance(answer, Aggregation):
        raise ConfigError(
            f"{method} returned {kind(answer)}; it must return an entity.updates.Aggregation."
        )
    for name, start in (("weights", updates.global_weights), ("buffers", updates.global_buffers)):
        found: object = getattr(answer, name)
        if not like(found, start):
            raise ConfigError(
                f"{method} returned {name} that are {kind(found)}; they must be {kind(start)}."
            )
    judged: Any = answer.verdicts
    if not isinstance(judged, tuple) or not all(isinstance(each, Verdict) for each in judged):
        raise ConfigError(
            f"{method} returned verdicts that are {kind(judged)}; they must be a tuple of "
            "entity.updates.Verdict, as entity.updates.verdicts makes."
        )
    clients = tuple(verdict.client for verdict in answer.verdicts)
    if clients != updates.client_ids:
        raise ConfigError(
            f"{method} returned verdicts on the clients {_listed(clients)}; there must be one for "
            f"each client of the round, in their order: {_listed(updates.client_ids)}."
        )
    kept = {name: getattr(answer, name) for name in ("weights", "buffers")}
    rows = [updates.weights, updates.buffers]
    copied = {
        name: vector.clone()
        for name, vector in kept.items()
        if any(_shares_memory(vector, matrix) for matrix in rows)
    }
    return replace(answer, **copied) if copied else answer


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    """Whether a vector is a view of a round's matrix, which the next round overwrites."""
    first, second = one.untyped_storage(), other.untyped_storage()
    return first.nbytes() > 0 and first.data_ptr() == second.data_ptr()


def _listed(clients: tuple[object, ...], most: int = 5) -> str:
    shown = ", ".join(map(str, clients[:most]))
    return f"{shown}, ... ({len(clients)})" if len(clients) > most else shown or "none"
