"""What each layer of a model puts out, and how far that is from another model's.

The layers are the modules with a weight of two dimensions or more of their own: linear layers,
convolutions, embeddings, recurrent layers, and those of a model of the user's own. Normalisation
has none. One that is applied twice counts twice.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from entity.layout import ModelState, ParamSpec

_BATCH = 128
"""Samples whose outputs are held at once."""

Place = tuple[str, int]
"""A layer's name, and which of its calls."""


def layers_of(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of a model by name; the model itself where it has no other."""
    found = {
        name: module
        for name, module in model.named_modules()
        if name and any(weight.ndim > 1 for weight in module.parameters(recurse=False))
    }
    return found or {"": model}


def layer_distances(
    model: nn.Module, spec: ParamSpec, first: ModelState, others: list[ModelState], x: Tensor
) -> Tensor:
    """Return how far models' layer outputs are from a first model's: (2, n, S, L) float64.

    [0] are cosine distances, from 0 to 2, and [1] Euclidean ones; what is not finite is the largest
    number of float32, and 2 as a cosine distance.

    Parameters
    ----------
    model
        Any model of that layout, on the device that computes; it is left with other weights, in
        evaluation mode.
    spec
        Its layout.
    first
        The model that the others are compared with.
    others
        n models.
    x
        (S, ...) samples.
    """
    batches: list[Tensor] = []
    device = next(model.parameters()).device
    for batch in x.split(_BATCH):
        given = batch.to(device)
        seen: dict[Place, Tensor] = {}
        spec.load(model, first)
        _watch(model, given, partial(_keep, seen))
        rows = [_from(model, spec, state, given, seen) for state in others]
        batches.append(torch.stack(rows, 1))
    return torch.cat(batches, 2)


def _keep(seen: dict[Place, Tensor], place: Place, output: Tensor) -> None:
    """Keep a copy: the next layer may work in place."""
    seen[place] = output.clone()


def _from(
    model: nn.Module, spec: ParamSpec, state: ModelState, x: Tensor, seen: dict[Place, Tensor]
) -> Tensor:
    """Return one model's distances (2, b, L) on a batch from the outputs that were seen."""
    found = {place: torch.zeros(2, len(x), dtype=torch.float64) for place in seen}

    def compare(place: Place, output: Tensor) -> None:
        if place in seen and output.shape == seen[place].shape:
            found[place] = distances(output, seen[place])

    spec.load(model, state)
    _watch(model, x, compare)
    return torch.stack([*found.values()], 2)


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return cosine and Euclidean distances (2, b), float64 on the CPU, of rows (b, d).

    The cosine distance of a zero row is 1, and from another one 0.

    Examples
    --------
    >>> distances(torch.tensor([[3.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 4.0], [0.0, 0.0]]))
    tensor([[1., 0.],
            [5., 0.]], dtype=torch.float64)
    """
    apart = a - b
    away, first, other = (_wide(torch.linalg.vector_norm(each, dim=1)) for each in (apart, a, b))
    along = _wide(apart.mul_(b).sum(1))
    # 1 - cos from the three sides of a triangle; how much longer a is than b, and not the
    # difference of two lengths, so that nothing cancels where a is near b.
    longer = (2 * along + away**2) / (first + other)
    cosine = (away - longer) * (away + longer) / (2 * first * other)
    alone = (first == 0) != (other == 0)
    cosine = torch.where(alone, 1.0, torch.where(first + other == 0, 0.0, cosine))
    most = torch.finfo(torch.float32).max
    return torch.stack([cosine.nan_to_num(2.0, 2.0).clamp(0, 2), away.nan_to_num(most, most)])


def _wide(numbers: Tensor) -> Tensor:
    return numbers.cpu().double()


@torch.inference_mode()
def _watch(model: nn.Module, x: Tensor, look: Callable[[Place, Tensor], None]) -> None:
    """Run a model on a batch, and show what each layer puts out as rows (b, d)."""
    calls: dict[str, int] = {}

    def hook(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def see(module: nn.Module, given: Any, output: Any) -> None:
            rows = _rows(output, len(x))
            calls[name] = calls.get(name, 0) + 1
            if rows is not None:
                look((name, calls[name]), rows)

        return see

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers_of(model).items()]
    try:
        model.eval()
        model(x)
    finally:
        for handle in handles:
            handle.remove()


def _rows(output: Any, count: int) -> Tensor | None:
    """Return a layer's output as one row a sample (count, d); None if it is not one of samples.

    Samples may be on the second axis, as a recurrent layer has them behind time.
    """
    while isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return None
    if output.ndim > 1 and len(output) != count and output.shape[1] == count:
        output = output.transpose(0, 1)
    if output.ndim == 0 or len(output) % count:
        return None
    if output.ndim == 4 and output.is_contiguous(memory_format=torch.channels_last):
        output = output.permute(0, 2, 3, 1)  # as it lies in memory: no order counts here
    return output.detach().float().reshape(count, -1)
