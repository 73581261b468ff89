"""Models as flat vectors: where each tensor of a module lies in them.

P trainable parameters make `weights` (P,), B buffer entries (BatchNorm statistics and counters)
make `buffers` (B,). Both follow the module's state dict: what several of its names share is in them
once, and a non-persistent buffer, which no state dict has, is no part of them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

BLOCK = 1 << 15
"""Columns processed at a time where a pass over (n, P) would otherwise need a copy of it."""

_WRAPPERS = ("module.", "_module.")
"""What data-parallel wrappers and Opacus put before all names; compiled modules add `_orig_mod.`
anywhere."""


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
    frozen: bool = False
    """Whether it is a parameter that asks for no gradient, so that training leaves it."""

    def of(self, vector: Tensor) -> Tensor:
        """View this tensor in a vector (P,) or in every row of a matrix (n, P)."""
        return vector[..., self.start : self.stop].unflatten(-1, self.shape or (1,))


@dataclass(frozen=True)
class ParamSpec:
    """The layout of a module's parameters and buffers in their flat vectors.

    Parameters are the module's in definition order, frozen ones too; buffers are everything else of
    the state dict. Names carry no prefix of a wrapper (`module.`, `_module.`) or a compiler
    (`_orig_mod.`), so a wrapped or compiled module has the same layout as the bare one.
    """

    parameters: tuple[Slot, ...]
    buffers: tuple[Slot, ...]
    counters: Tensor
    """(B,) bool: entries that count (`num_batches_tracked`): combined by maximum, never averaged.

    They travel as float32, which is exact up to 16.7 million batches.
    """
    variances: Tensor
    """(B,) bool: entries that are variances and must not become negative."""
    ties: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    """Further names of tied tensors in the state dict, each with the name of the slot."""
    scratch: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor], hash=False)
    """Non-persistent buffers as the module had them. `load` puts them back, so that nothing of one
    client's training is left in them for the next."""

    @classmethod
    def of(cls, module: nn.Module) -> "ParamSpec":
        """Read the layout off a module."""
        tensors = _tensors_of(module)
        buffers = _slots(tensors.buffers)
        size = buffers[-1].stop if buffers else 0
        counters = torch.zeros(size, dtype=torch.bool)
        variances = torch.zeros(size, dtype=torch.bool)
        for slot, buffer in zip(buffers, tensors.buffers.values(), strict=True):
            counters[slot.start : slot.stop] = not buffer.is_floating_point()
            variances[slot.start : slot.stop] = slot.name.endswith("running_var")
        return cls(
            _slots(tensors.parameters),
            buffers,
            counters,
            variances,
            tensors.ties,
            {name: tensor.detach().cpu().clone() for name, tensor in tensors.scratch.items()},
        )

    @property
    def num_parameters(self) -> int:
        """P."""
        return self.parameters[-1].stop if self.parameters else 0

    @property
    def num_buffers(self) -> int:
        """B."""
        return self.buffers[-1].stop if self.buffers else 0

    def slot(self, name: str) -> Slot:
        """Return one parameter's slot, by any of its names.

        Raises
        ------
        KeyError
            If the model has no parameter of that name.
        """
        own = self.ties.get(name, name)
        for slot in self.parameters:
            if slot.name == own:
                return slot
        raise KeyError(name)

    def names(self, slot: Slot) -> tuple[str, ...]:
        """Return all names that a slot's tensor has in the state dict, the slot's own first."""
        return (slot.name, *(name for name, own in self.ties.items() if own == slot.name))

    @property
    def frozen(self) -> tuple[Slot, ...]:
        """The parameters that training leaves."""
        return tuple(slot for slot in self.parameters if slot.frozen)

    @property
    def num_trained(self) -> int:
        """How many entries of the weights are not frozen."""
        return self.num_parameters - sum(slot.stop - slot.start for slot in self.frozen)

    def trained_columns(self, which: Tensor) -> Tensor:
        """Return where in the weights some of the `num_trained` entries are, by their numbers."""
        for slot in self.frozen:
            which = which + (which >= slot.start) * (slot.stop - slot.start)
        return which

    def trained(self, weights: Tensor) -> Tensor:
        """Return weights (P,) with zeros where parameters are frozen; as they are without any."""
        weights = weights.clone() if self.frozen else weights
        for slot in self.frozen:
            slot.of(weights).zero_()
        return weights

    def with_frozen(self, weights: Tensor, of: Tensor) -> Tensor:
        """Return weights (P,) or (n, P) whose frozen entries are those of others (P,).

        They are copied only where one differs.
        """
        if all(
            torch.equal(slot.of(weights), slot.of(of).expand_as(slot.of(weights)))
            for slot in self.frozen
        ):
            return weights
        weights = weights.clone()
        for slot in self.frozen:
            slot.of(weights).copy_(slot.of(of))
        return weights

    def flatten(self, module: nn.Module) -> ModelState:
        """Copy a module's tensors into new vectors."""
        state = ModelState(torch.empty(self.num_parameters), torch.empty(self.num_buffers))
        self.flatten_into(module, state)
        return state

    def flatten_into(self, module: nn.Module, out: ModelState) -> None:
        """Copy a module's tensors into given vectors, such as rows of a shared matrix."""
        tensors = _tensors_of(module)
        with torch.no_grad():
            _gather(self.parameters, list(tensors.parameters.values()), out.weights)
            _gather(self.buffers, list(tensors.buffers.values()), out.buffers)

    def load(self, module: nn.Module, state: ModelState) -> None:
        """Copy flat vectors into a module; its non-persistent buffers begin anew."""
        tensors = _tensors_of(module)
        with torch.no_grad():
            _scatter(self.parameters, list(tensors.parameters.values()), state.weights)
            _scatter(self.buffers, list(tensors.buffers.values()), state.buffers)
            for name, tensor in tensors.scratch.items():
                first = self.scratch.get(name)
                # A cache may have grown since. What nobody writes to may be a view of one number.
                if first is not None and first.shape == tensor.shape:
                    first = first.to(tensor.device)
                    if not torch.equal(first, tensor):
                        tensor.copy_(first)


def _gather(slots: Sequence[Slot], tensors: Sequence[Tensor], out: Tensor) -> None:
    """Copy tensors into a vector; from another device at once, since each copy is a wait."""
    assert len(slots) == len(tensors), "the layout is another module's"
    if tensors and any(tensor.device != out.device for tensor in tensors):
        out.copy_(torch.cat([tensor.detach().to(out.dtype).flatten() for tensor in tensors]))
        return
    for slot, tensor in zip(slots, tensors, strict=True):
        out[slot.start : slot.stop].view(slot.shape).copy_(tensor)


def _scatter(slots: Sequence[Slot], tensors: Sequence[Tensor], vector: Tensor) -> None:
    """Copy a vector into tensors; to another device at once, since each copy is a wait."""
    assert len(slots) == len(tensors), "the layout is another module's"
    if tensors:
        vector = vector.to(tensors[0].device)
    for slot, tensor in zip(slots, tensors, strict=True):
        tensor.copy_(vector[slot.start : slot.stop].view(slot.shape))


class _Tensors(NamedTuple):
    """The tensors of a module by their plain names, each once."""

    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]
    scratch: dict[str, Tensor]
    """Non-persistent buffers."""
    ties: dict[str, str]
    """Further names, as in `ParamSpec.ties`."""


def _tensors_of(module: nn.Module) -> _Tensors:
    parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
    kept = {  # a module's extra state may be anything
        name: value
        for name, value in module.state_dict(keep_vars=True).items()
        if isinstance(value, Tensor)
    }
    plain = plain_names([*parameters, *buffers, *kept])
    saved = {id(tensor) for tensor in kept.values()}
    persistent = {name for name, each in buffers.items() if name in kept or id(each) in saved}
    own = {id(tensor): name for name, tensor in [*buffers.items(), *parameters.items()]}
    return _Tensors(
        {plain[name]: tensor for name, tensor in parameters.items()},
        {plain[name]: each for name, each in buffers.items() if name in persistent},
        {plain[name]: each for name, each in buffers.items() if name not in persistent},
        {
            plain[name]: plain[own[id(tensor)]]
            for name, tensor in kept.items()
            if own.get(id(tensor), name) != name
        },
    )


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Return the names of a module's tensors without the prefixes of wrapped and compiled modules.

    Examples
    --------
    >>> plain_names(["module._orig_mod.conv.weight", "module._orig_mod.conv.bias"])
    {'module._orig_mod.conv.weight': 'conv.weight', 'module._orig_mod.conv.bias': 'conv.bias'}

    A wrapper is before all names; a model's own `module` is not.

    >>> plain_names(["_module.module.weight", "_module.head.bias"])
    {'_module.module.weight': 'module.weight', '_module.head.bias': 'head.bias'}
    """
    plain = {name: name.replace("_orig_mod.", "") for name in names}
    while plain:
        prefix = next((w for w in _WRAPPERS if all(p.startswith(w) for p in plain.values())), None)
        if prefix is None:
            break
        plain = {name: short.removeprefix(prefix) for name, short in plain.items()}
    return plain


def _slots(tensors: Mapping[str, Tensor]) -> tuple[Slot, ...]:
    slots: list[Slot] = []
    start = 0
    for name, tensor in tensors.items():
        frozen = isinstance(tensor, nn.Parameter) and not tensor.requires_grad
        slots.append(Slot(name, tensor.shape, start, start + tensor.numel(), frozen))
        start += tensor.numel()
    return tuple(slots)


def blocks(size: int) -> Iterator[slice]:
    """Cut `size` columns into slices that fit the cache."""
    for start in range(0, size, BLOCK):
        yield slice(start, min(start + BLOCK, size))
