"""Whether what a defense returns is an answer to its round.

Anybody can write a defense. One that returns something else would fail far from its own code, or
change what is recorded without a word.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any, cast

import numpy as np
from torch import Tensor

from entity.config.schema import ConfigError
from entity.returned import kind, like
from entity.server.contract import Server
from entity.updates import Aggregation, ClientId, Updates, Verdict


def checked(server: Server[Any], updates: Updates, answer: object) -> Aggregation:
    """Return the answer of a defense, once it has what an answer must have.

    A model that is a row of the round is copied: the next round writes into that row. Tensors of
    one element and NumPy's numbers become numbers, as a record has them.

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
        If it is no `Aggregation`, its model is not of float32 in the shape of the round's, it has
        not one verdict for each client in their order, or something is no number that must be one.
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
    kept = {name: getattr(answer, name) for name in ("weights", "buffers")}
    rows = [updates.weights, updates.buffers]
    copied = {
        name: vector.clone()
        for name, vector in kept.items()
        if any(_shares_memory(vector, matrix) for matrix in rows)
    }
    return replace(
        answer,
        **copied,
        verdicts=_verdicts(method, answer.verdicts, updates),
        diagnostics=_numbers(f"{method} returned diagnostics", answer.diagnostics),
        seconds=_seconds(f"{method} returned seconds", answer.seconds),
    )


def _verdicts(method: str, judged: Any, updates: Updates) -> tuple[Verdict, ...]:
    if not isinstance(judged, tuple) or not all(isinstance(each, Verdict) for each in judged):
        raise ConfigError(
            f"{method} returned verdicts that are {kind(judged)}; they must be a tuple of "
            "entity.updates.Verdict, as entity.updates.verdicts makes."
        )
    verdicts: tuple[Verdict, ...] = judged
    clients = tuple(verdict.client for verdict in verdicts)
    if clients != updates.client_ids:
        raise ConfigError(
            f"{method} returned verdicts on the clients {_listed(clients)}; there must be one for "
            f"each client of the round, in their order: {_listed(updates.client_ids)}."
        )
    pairs = zip(updates.client_ids, verdicts, strict=True)
    return tuple(_verdict(f"{method} returned a verdict", *pair) for pair in pairs)


def _verdict(said: str, client: ClientId, verdict: Verdict) -> Verdict:
    reason: Any = verdict.reason
    if not isinstance(reason, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigError(f"{said} with reason that is {kind(reason)}; it must be a text.")
    score, weight = verdict.score, _number(f"{said} with weight", verdict.weight)
    if weight > 0 and not verdict.accepted and not verdict.undecided:
        raise ConfigError(
            f"{said} that client {client} is refused, with weight {weight:g}; who is refused has 0."
        )
    return Verdict(
        client,
        accepted=_yes_or_no(f"{said} with accepted", verdict.accepted),
        weight=weight,
        score=None if score is None else _number(f"{said} with score", score),
        reason=reason,
        undecided=_yes_or_no(f"{said} with undecided", verdict.undecided),
    )


def _numbers(said: str, found: object) -> dict[str, float]:
    if not isinstance(found, Mapping):
        raise ConfigError(f"{said} that are {kind(found)}; they must be numbers by name.")
    table = cast("Mapping[object, object]", found)
    for key in table:
        if not isinstance(key, str):
            raise ConfigError(f"{said} with the name {key!r}; a name must be a text.")
    return {str(key): _number(f'{said}["{key}"]', value) for key, value in table.items()}


def _seconds(said: str, found: object) -> dict[str, float]:
    seconds = _numbers(said, found)
    for key, value in seconds.items():
        if not 0 <= value < inf:
            raise ConfigError(f'{said}["{key}"] = {value}; it must be a finite number from 0 on.')
    return seconds


def _yes_or_no(said: str, value: Any) -> bool:
    number = _number(said, value)
    if number not in (0, 1):
        raise ConfigError(f"{said} = {number}; it must be true or false.")
    return bool(number)


def _number(said: str, value: Any) -> float:
    """Return a number as it is, and what holds one as a number."""
    # `float` would read a text, and drop an imaginary part of NumPy's.
    is_complex = isinstance(value, np.ndarray | np.generic) and np.iscomplexobj(value)
    if not isinstance(value, str | bytes | bytearray) and not is_complex:
        try:
            number = float(value.detach() if isinstance(value, Tensor) else value)
        except (TypeError, ValueError, RuntimeError, OverflowError):
            pass
        else:
            return value if isinstance(value, int | float) else number
    raise ConfigError(f"{said} that is {kind(value)}; it must be a number.")


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    """Whether a vector is a view of a round's matrix, which the next round overwrites."""
    first, second = one.untyped_storage(), other.untyped_storage()
    return first.nbytes() > 0 and first.data_ptr() == second.data_ptr()


def _listed(clients: tuple[object, ...], most: int = 5) -> str:
    shown = ", ".join(map(str, clients[:most]))
    return f"{shown}, ... ({len(clients)})" if len(clients) > most else shown or "none"
