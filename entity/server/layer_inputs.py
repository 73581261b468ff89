"""What the layers of a model are applied to: rows of inputs, patches of them for convolutions."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding

ROWS = 2048
"""Inputs of a layer that are kept: drawn at random where there are more."""

_BATCH = 100
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Embedding)


def layer_inputs(
    model: nn.Module, images: Tensor, generator: torch.Generator
) -> Iterator[tuple[str, Layer, Tensor]]:
    """Yield the name of each linear layer, convolution and embedding, the layer, and its inputs.

    The inputs are (groups, m, d): m vectors of d entries for every group of channels that the
    layer keeps apart (one, but for grouped convolutions), whose product with `weight`, reshaped to
    (groups, out, d), are the layer's outputs without the bias. Those of an embedding are (m,)
    tokens, all of them. A layer that the model does not use on these images is left out.

    Parameters
    ----------
    model
        In whatever mode; it is run in evaluation mode.
    images
        (S, ...) inputs of the model.
    generator
        On the CPU; draws which patches are kept.
    """
    layers = {name: each for name, each in model.named_modules() if isinstance(each, _LAYERS)}
    kept: dict[str, list[Tensor]] = {}
    batches = images.split(_BATCH)
    device = next(model.parameters()).device

    def watch(name: str, layer: Layer) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, given: tuple[Tensor, ...]) -> None:
            rows = _rows(layer, given[0].detach())
            if not isinstance(layer, nn.Embedding):
                share = -(-ROWS // len(batches))
                if rows.shape[1] > share:
                    drawn = torch.randperm(rows.shape[1], generator=generator)[:share]
                    rows = rows[:, drawn.to(rows.device)]
            kept.setdefault(name, []).append(rows)

        return layer.register_forward_pre_hook(look)

    training = model.training
    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        model.eval()
        with torch.no_grad():
            for batch in batches:
                model(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    for name, rows in kept.items():
        layer = layers[name]
        yield name, layer, torch.cat(rows, 0 if isinstance(layer, nn.Embedding) else 1)


def _rows(layer: Layer, given: Tensor) -> Tensor:
    """Return a batch's inputs (groups, m, d) of a layer, or the tokens (m,) of an embedding."""
    if isinstance(layer, nn.Embedding):
        return given.flatten()
    if isinstance(layer, nn.Linear):
        return given.flatten(0, -2)[None]
    sizes, dilation, stride = layer.kernel_size, layer.dilation, layer.stride
    given = F.pad(given, _padding(layer), _MODES.get(layer.padding_mode, layer.padding_mode))
    if isinstance(layer, nn.Conv1d):
        given, sizes = given[:, :, None], (1, *sizes)
        dilation, stride = (1, *dilation), (1, *stride)
    patches = F.unfold(given, sizes, dilation, 0, stride)  # (b, C * k, positions)
    patches = patches.unflatten(1, (layer.groups, -1))
    return patches.permute(1, 0, 3, 2).flatten(1, 2)


_MODES = {"zeros": "constant"}


def _padding(layer: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Return what `F.pad` adds to a convolution's input: (left, right) of the last axis first."""
    pads = list[int]()
    for axis in reversed(range(len(layer.kernel_size))):
        if layer.padding == "valid":
            pads += [0, 0]
        elif layer.padding == "same":
            total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
            pads += [total // 2, total - total // 2]
        else:
            pads += 2 * [int(layer.padding[axis])]
    return pads
