"""Aggregating updates as they come: a round's memory is a few models, however many clients it has.

A defense can stream if it sees no more of a round than the mean of its updates, each of them
scaled by itself. Updates are added up in float64 as they arrive, and the server then aggregates
the mean as it would a round of one client. So weights agree with those of the matrix within
float32's rounding, not to the bit: the matrix product adds in another order.
"""

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from entity.layout import ModelState, blocks
from entity.server.contract import Args, Server
from entity.server.gate import REPEATED, decide, fault_of, undecided_for
from entity.updates import Aggregation, ClientId, Stopwatch, Updates, Verdict


class StreamingServer(Server[Args]):
    """A defense that can take the updates of a round as they come."""

    streams_with: ClassVar[str] = ""
    """The settings with which it streams, for `drop list`; empty for any."""

    @classmethod
    def streams(cls, args: Args) -> bool:
        """Whether it streams with these settings."""
        return True

    @property
    def scale(self) -> Callable[[float], float] | None:
        """The factor for an update of a given norm; None leaves all as they are."""
        return None


def can_stream(defense: type[Server[Any]], args: Any) -> bool:
    """Whether a defense with these settings can take updates as they come."""
    return issubclass(defense, StreamingServer) and defense.streams(args)


class _Arrival(NamedTuple):
    client: ClientId
    share: float
    factor: float
    norm: float | None
    reason: str = ""


class Stream:
    """One round of a server that can stream.

    Parameters
    ----------
    server
        The defense.
    round
        Number of the round.
    start
        The global model, which all clients start from.
    """

    def __init__(self, server: Server[Any], round: int, start: ModelState) -> None:
        assert isinstance(server, StreamingServer), "setup refuses to stream into any other"
        self.server: StreamingServer[Any] = server
        self.round, self.start = round, start
        spec = server.resources.spec
        by_median = server.resources.averaging.bn_policy == "median"
        assert not (by_median and spec.num_buffers), "setup refuses to stream into a median"
        self._spec = spec
        self._weights = torch.zeros(spec.num_parameters, dtype=torch.float64)
        self._buffers = torch.zeros(spec.num_buffers, dtype=torch.float64)
        self._highest = torch.full((spec.num_buffers,), -torch.inf)
        self._arrivals: list[_Arrival] = []
        self._seen: set[ClientId] = set()
        self._watch = Stopwatch()

    def accept(self, client: ClientId, state: ModelState, num_samples: float) -> None:
        """Take one client's model, of which nothing is kept, or refuse it as the gate does.

        Parameters
        ----------
        client
            Who sends it.
        state
            The model; it may be overwritten afterwards.
        num_samples
            Registered size of the client's data.
        """
        with self._watch("accumulate"):
            reason = REPEATED if client in self._seen else fault_of(state, float(num_samples))
            state = state._replace(
                weights=self._spec.with_frozen(state.weights, self.start.weights)
            )
            self._seen.add(client)
            self._arrivals.append(
                _Arrival(client, 0.0, 0.0, None, reason)
                if reason
                else self._add(client, state, float(num_samples))
            )

    def _add(self, client: ClientId, state: ModelState, samples: float) -> _Arrival:
        by_samples = self.server.resources.averaging.weighting == "samples"
        share = samples if by_samples else 1.0
        scale = self.server.scale
        norm, factor = None, 1.0
        if scale is not None:
            norm = delta_norm(state.weights, self.start.weights)
            factor = scale(norm)
        for columns in blocks(len(self._weights)):
            delta = state.weights[columns].double() - self.start.weights[columns].double()
            self._weights[columns].add_(delta, alpha=share * factor)
        moved = state.buffers.double() - self.start.buffers.double()
        at_most_one = torch.where(self._spec.counters, 1.0, min(1.0, max(0.0, factor)))
        self._buffers.addcmul_(moved, at_most_one.double(), value=share)
        if share > 0:
            self._highest = torch.maximum(self._highest, state.buffers)
        return _Arrival(client, share, factor, norm)

    def finish(self) -> Aggregation:
        """Aggregate what has arrived and judge every client."""
        total = sum(arrival.share for arrival in self._arrivals)
        if total == 0:
            answer = Aggregation(*self.start, verdicts=(), diagnostics={"kept_global": 1.0})
        else:
            answer = decide(self.server, self._round_of_the_mean(total))
        # Where the mean is not finite the global model stays, and nobody is judged.
        why = next((verdict.reason for verdict in answer.verdicts if not verdict.accepted), "")
        refused = sum(bool(arrival.reason) for arrival in self._arrivals)
        diagnostics = dict(answer.diagnostics)
        if self.server.scale is not None:
            diagnostics["clipped"] = float(
                sum(0 < arrival.factor < 1 for arrival in self._arrivals)
            )
        if refused:
            diagnostics["gate_refused"] = float(refused)
        return Aggregation(
            *answer.state,
            tuple(_verdict(arrival, total, why) for arrival in self._arrivals),
            diagnostics,
            {**self._watch.seconds, **answer.seconds},
            answer.artifacts,
        )

    def _round_of_the_mean(self, total: float) -> Updates:
        """Return a round of one client, whose model is the mean."""
        weights = (self.start.weights.double() + self._weights / total).float()
        buffers = (self.start.buffers.double() + self._buffers / total).float()
        if self.server.resources.averaging.bn_policy != "original":  # which averages counters
            buffers = torch.where(self._spec.counters, self._highest, buffers)
        return Updates(
            self.round,
            ("mean",),
            weights[None],
            buffers[None],
            torch.ones(1),
            *self.start,
            spec=self._spec,
        )


def delta_norm(weights: Tensor, start: Tensor) -> float:
    """Return the Euclidean norm of `weights - start` (P,), summed in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for columns in blocks(len(weights)):
        total += (weights[columns].double() - start[columns].double()).square().sum()
    return float(total.sqrt())


def _verdict(arrival: _Arrival, total: float, kept: str) -> Verdict:
    if arrival.reason:
        return Verdict(arrival.client, accepted=False, reason=arrival.reason)
    if kept:
        return undecided_for(arrival.client, kept)
    share = arrival.share / total if total > 0 else 0.0
    return Verdict(arrival.client, True, share * arrival.factor, arrival.norm)
