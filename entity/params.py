"""What clients send and servers answer: models as flat vectors, and the messages around them.

Sizes used throughout: n clients in the round, P trainable parameters, B buffer entries
(BatchNorm statistics and counters).
"""

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor, nn

ClientId = int | str
"""Identity of a client across rounds: int in the simulator, Flower's node id as str."""

BLOCK = 1 << 15
"""Columns taken at a time where a pass over (n, P) would otherwise need a copy of it."""

_WRAPPED = re.compile(r"^(module\.)+")
"""What data-parallel wrappers put before a name; compiled modules add `_orig_mod.` anywhere."""

_CANCELLED = 1e-9
"""Share of |a|^2 + |b|^2 below which rounding has eaten most of |a|^2 + |b|^2 - 2ab."""


class ModelState(NamedTuple):
    """A model as vectors: `weights` (P,) and `buffers` (B,), both float32 on the CPU."""

    weights: Tensor
    buffers: Tensor


@dataclass(frozen=True)
class Slot:
    """Where one tensor of a module lies in its flat vector: `vector[start:stop]`."""

    name: str
    shape: torch.Size
    start: int
    stop: int

    def of(self, vector: Tensor) -> Tensor:
        """View this tensor in a vector (P,) or in every row of a matrix (n, P)."""
        return vector[..., self.start : self.stop].unflatten(-1, self.shape or (1,))


@dataclass(frozen=True)
class ParamSpec:
    """The layout of a module's parameters and buffers in their flat vectors.

    Parameters are the trainable tensors in definition order, buffers everything else of the
    state dict. Names carry no `module.` or `_orig_mod.` prefix, so a wrapped or compiled module
    has the same layout as the bare one.
    """

    parameters: tuple[Slot, ...]
    buffers: tuple[Slot, ...]
    counters: Tensor
    """(B,) bool: entries that count (`num_batches_tracked`): combined by maximum, never averaged.

    They travel as float32, which is exact up to 16.7 million batches.
    """
    variances: Tensor
    """(B,) bool: entries that are variances and must not become negative."""

    @classmethod
    def of(cls, module: nn.Module) -> "ParamSpec":
        """Read the layout off a module."""
        named = list(module.named_buffers())
        buffers = _slots(named)
        size = buffers[-1].stop if buffers else 0
        counters = torch.zeros(size, dtype=torch.bool)
        variances = torch.zeros(size, dtype=torch.bool)
        for slot, (name, buffer) in zip(buffers, named, strict=True):
            counters[slot.start : slot.stop] = not buffer.is_floating_point()
            variances[slot.start : slot.stop] = name.endswith("running_var")
        return cls(_slots(module.named_parameters()), buffers, counters, variances)

    @property
    def num_parameters(self) -> int:
        """P."""
        return self.parameters[-1].stop if self.parameters else 0

    @property
    def num_buffers(self) -> int:
        """B."""
        return self.buffers[-1].stop if self.buffers else 0

    def slot(self, name: str) -> Slot:
        """Return the place of one parameter; KeyError if the model has none of that name."""
        for slot in self.parameters:
            if slot.name == name:
                return slot
        raise KeyError(name)

    def flatten(self, module: nn.Module) -> ModelState:
        """Copy a module's tensors into new vectors."""
        state = ModelState(torch.empty(self.num_parameters), torch.empty(self.num_buffers))
        self.flatten_into(module, state)
        return state

    def flatten_into(self, module: nn.Module, out: ModelState) -> None:
        """Copy a module's tensors into given vectors, such as rows of a shared matrix."""
        with torch.no_grad():
            for slot, tensor in zip(self.parameters, module.parameters(), strict=True):
                out.weights[slot.start : slot.stop].view(slot.shape).copy_(tensor)
            for slot, tensor in zip(self.buffers, module.buffers(), strict=True):
                out.buffers[slot.start : slot.stop].view(slot.shape).copy_(tensor)

    def load(self, module: nn.Module, state: ModelState) -> None:
        """Copy flat vectors into a module, parameters and buffers alike."""
        with torch.no_grad():
            for slot, tensor in zip(self.parameters, module.parameters(), strict=True):
                tensor.copy_(state.weights[slot.start : slot.stop].view(slot.shape))
            for slot, tensor in zip(self.buffers, module.buffers(), strict=True):
                tensor.copy_(state.buffers[slot.start : slot.stop].view(slot.shape))


def plain_name(name: str) -> str:
    """Return a tensor's name without what wrapped and compiled modules put before it.

    Examples
    --------
    >>> plain_name("module._orig_mod.conv.weight")
    'conv.weight'
    """
    return _WRAPPED.sub("", name.replace("_orig_mod.", ""))


def _slots(named: Iterable[tuple[str, Tensor]]) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    start = 0
    for name, tensor in named:
        slots.append(Slot(plain_name(name), tensor.shape, start, start + tensor.numel()))
        start += tensor.numel()
    return tuple(slots)


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
    """(P,) what they started from."""
    global_buffers: Tensor
    """(B,)."""
    spec: ParamSpec
    """Names and shapes behind the P columns."""

    def __len__(self) -> int:
        return len(self.client_ids)

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
        """(n, P) weights minus global weights; a second matrix, so only for who needs the rows."""
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
        for i, j in (squared < _CANCELLED * sums).triu(1).nonzero().tolist():
            squared[i, j] = squared[j, i] = _squared_distance(self.weights[i], self.weights[j])
        return squared.sqrt()

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


def blocks(size: int) -> Iterator[slice]:
    """Cut `size` columns into slices that fit the cache."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))


@dataclass(frozen=True)
class Verdict:
    """What a server thought of one client in one round."""

    client: ClientId
    accepted: bool
    weight: float = 0.0
    """Share of this client in the aggregate; NaN where the rule has no such share."""
    score: float | None = None
    """The quantity the rule judged by, on its own scale."""
    reason: str = ""
    """Why the client was refused; empty for accepted ones."""


def _no_tensors() -> Mapping[str, Tensor]:
    return {}


def _no_numbers() -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Aggregation:
    """A server's answer to a round."""

    weights: Tensor
    """(P,) the next global model."""
    buffers: Tensor
    """(B,)."""
    verdicts: tuple[Verdict, ...]
    """One for each client, in the order of the updates."""
    diagnostics: Mapping[str, float] = field(default_factory=_no_numbers)
    """Scalars worth plotting."""
    seconds: Mapping[str, float] = field(default_factory=_no_numbers)
    """Cost by phase."""
    artifacts: Mapping[str, Tensor] = field(default_factory=_no_tensors)
    """Pictures and trees worth keeping: `generated` (k, C, H, W) uint8, `linkage` (n-1, 4)."""

    @property
    def state(self) -> ModelState:
        """The next global model."""
        return ModelState(self.weights, self.buffers)


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
