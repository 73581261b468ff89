"""The messages of a round: what clients send and what servers answer.

Sizes used throughout: n clients in the round, P trainable parameters, B buffer entries
(BatchNorm statistics and counters).
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from entity.layout import ModelState, ParamSpec, blocks

ClientId = int | str
"""Identity of a client across rounds: int in the simulator, Flower's node id as str."""

_CANCELLED = 1e-9
"""Share of |a|^2 + |b|^2 below which rounding has eaten most of |a|^2 + |b|^2 - 2ab."""


def rows_by_id(client_ids: Sequence[ClientId]) -> list[int]:
    """Return the rows in the order of their clients' ids: numbers, also as text, then other texts.

    What depends on an order (ties, the seeding of k-means) goes by this one, never by the order
    in which updates arrived.

    Examples
    --------
    >>> rows_by_id([7, "b", 3, "a"]), rows_by_id(["10", "9"])
    ([2, 0, 3, 1], [1, 0])
    """

    def key(row: int) -> tuple[int, int, str]:
        client = client_ids[row]
        if not isinstance(client, str):
            return (0, client, "")
        number = client.isascii() and client.isdecimal() and len(client) < 100
        return (0, int(client), client) if number else (1, 0, client)

    return sorted(range(len(client_ids)), key=key)


@dataclass(frozen=True)
class Updates:
    """What a server receives in one round: the selected clients' models as one matrix."""

    round: int
    """Number of the round, from 1."""
    client_ids: tuple[ClientId, ...]
    weights: Tensor
    """(n, P) float32: the clients' parameters after local training."""
    buffers: Tensor
    """(n, B) float32."""
    num_samples: Tensor
    """(n,) registered sizes of the clients' data."""
    global_weights: Tensor
    """(P,) the model that they started from."""
    global_buffers: Tensor
    """(B,)."""
    spec: ParamSpec
    """Names and shapes behind the P columns."""
    asked: int = 0
    """Clients that were sent the model, if more than the n that came."""

    def __len__(self) -> int:
        return len(self.client_ids)

    @property
    def round_size(self) -> int:
        """Clients that were sent the model, whether or not they came."""
        return max(self.asked, len(self))

    @property
    def global_state(self) -> ModelState:
        """The model that the clients started from."""
        return ModelState(self.global_weights, self.global_buffers)

    def state(self, row: int) -> ModelState:
        """One client's model."""
        return ModelState(self.weights[row], self.buffers[row])

    def select(self, rows: Sequence[int]) -> "Updates":
        """Return the updates of some clients, in the given order."""
        if list(rows) == list(range(len(self))):
            return self
        index = torch.as_tensor(rows, dtype=torch.long)
        return replace(
            self,
            client_ids=tuple(self.client_ids[row] for row in rows),
            weights=self.weights[index],
            buffers=self.buffers[index],
            num_samples=self.num_samples[index],
        )

    @cached_property
    def deltas(self) -> Tensor:
        """(n, P) weights minus global weights: a second matrix, for rules that need rows."""
        return self.weights - self.global_weights

    @cached_property
    def gram(self) -> Tensor:
        """(n, n) float64: inner products of the deltas, in blocks, without building the deltas."""
        gram = torch.zeros(len(self), len(self), dtype=torch.float64)
        for columns in blocks(self.weights.shape[1]):
            block = self.weights[:, columns].to(torch.float64, copy=True)
            block.sub_(self.global_weights[columns].double())
            gram.addmm_(block, block.T)
        return gram

    @cached_property
    def norms(self) -> Tensor:
        """(n,) float64: Euclidean norms of the deltas."""
        return self.gram.diagonal().clamp_min(0).sqrt()

    @cached_property
    def distances(self) -> Tensor:
        """(n, n) float64: Euclidean distances between the clients' weights."""
        squares = self.gram.diagonal()
        sums = squares[:, None] + squares[None, :]
        squared = (sums - 2 * self.gram).clamp_min(0).fill_diagonal_(0)
        near = (squared < _CANCELLED * sums).triu(1).nonzero().tolist()
        first = self._first_of_equals(near)  # colluders who send one model are compared once
        known: dict[tuple[int, int], Tensor] = {}
        for i, j in near:
            one, other = sorted((first[i], first[j]))
            if one == other:
                squared[i, j] = squared[j, i] = 0
                continue
            if (one, other) not in known:
                known[one, other] = _squared_distance(self.weights[one], self.weights[other])
            squared[i, j] = squared[j, i] = known[one, other]
        return squared.sqrt()

    def _first_of_equals(self, near: Sequence[tuple[int, int]]) -> list[int]:
        """Return for each row the first one that is equal to it, looked for among near pairs."""
        first = list(range(len(self)))
        for i, j in near:  # by rows: what i is equal to is known
            if first[j] == j and torch.equal(self.weights[first[i]], self.weights[j]):
                first[j] = first[i]
        return first

    @cached_property
    def cosines(self) -> Tensor:
        """(n, n) float64: cosine similarities of the deltas; 0 where a delta is zero."""
        scale = torch.where(self.norms > 0, 1 / self.norms, 0)
        return (self.gram * scale[:, None] * scale[None, :]).clamp(-1, 1)


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for part in blocks(len(a)):
        total += (a[part].double() - b[part].double()).square().sum()
    return total


@dataclass(frozen=True)
class Verdict:
    """A server's judgement of one client in one round."""

    client: ClientId
    accepted: bool
    weight: float = 0.0
    """Share of this client in the aggregate; NaN where the rule has no such share."""
    score: float | None = None
    """The quantity the rule judged by, on its own scale."""
    reason: str = ""
    """Why the client was refused; empty for accepted ones."""
    undecided: bool = False
    """Whether nobody judged it, as the round kept the global model; such a client is not accepted,
    and counts as refused in no statistic."""


def verdicts(
    updates: Updates,
    accepted: Sequence[bool],
    shares: Tensor,
    *,
    scores: Sequence[float] | None = None,
    reasons: Mapping[int, str] | None = None,
) -> tuple[Verdict, ...]:
    """Pair every client of the round with what was decided.

    Parameters
    ----------
    updates
        The round of n clients.
    accepted
        n truth values.
    shares
        (n,) the clients' shares in the aggregate.
    scores
        n quantities that the rule judged by.
    reasons
        Why a client was refused, by row.
    """
    return tuple(
        Verdict(
            client,
            bool(accepted[row]),
            float(shares[row]),
            None if scores is None else float(scores[row]),
            "" if accepted[row] else (reasons or {}).get(row, "refused"),
        )
        for row, client in enumerate(updates.client_ids)
    )


@dataclass(frozen=True)
class Aggregation:
    """A server's answer to a round."""

    weights: Tensor
    """(P,) the next global model."""
    buffers: Tensor
    """(B,)."""
    verdicts: tuple[Verdict, ...]
    """One for each client, in the order of the updates."""
    diagnostics: Mapping[str, float] = field(default_factory=dict[str, float])
    """Scalars worth plotting."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Cost by phase."""
    artifacts: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Pictures and trees worth keeping: `generated` (k, C, H, W) uint8, `linkage` (n-1, 4)."""
    replaced: bool = False
    """Whether the model is no step from the global one, as a distilled student is none."""

    @property
    def state(self) -> ModelState:
        """The next global model."""
        return ModelState(self.weights, self.buffers)

    def completed(
        self, state: ModelState, numbers: Mapping[str, float], seconds: Mapping[str, float]
    ) -> "Aggregation":
        """Return the answer with another next model, and what making it adds to the record."""
        return replace(
            self,
            weights=state.weights,
            buffers=state.buffers,
            diagnostics={**self.diagnostics, **numbers},
            seconds={**self.seconds, **seconds},
        )


class Stopwatch:
    """Seconds by phase: `with watch("cluster"): ...` adds to `watch.seconds["cluster"]`."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def __call__(self, phase: str) -> Generator[None]:
        """Time a block and add it to its phase, also when the block raises."""
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + self._clock() - start


def finite_rows(updates: Updates) -> list[int]:
    """Return the rows of a round whose weights are finite: a server takes no others."""
    return [row for row in range(len(updates)) if bool(updates.weights[row].isfinite().all())]
