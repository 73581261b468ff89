"""Models as flat vectors: where each tensor of a module lies in them.

P trainable parameters make `weights` (P,), B buffer entries (BatchNorm statistics and counters)
make `buffers` (B,).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

BLOCK = 1 << 15
"""Columns processed at a time where a pass over (n, P) would otherwise need a copy of it."""

_WRAPPED = re.compile(r"^(module\.)+")
"""Prefix of names in data-parallel wrappers; compiled modules add `_orig_mod.` anywhere."""


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
        """Return one parameter's slot.

        Raises
        ------
        KeyError
            If the model has no parameter of that name.
        """
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
    """Return a tensor's name without the prefixes of wrapped and compiled modules.

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


def blocks(size: int) -> Iterator[slice]:
    """Cut `size` columns into slices that fit the cache."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))
