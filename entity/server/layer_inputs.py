"""What the layers of a model are applied to: rows of inputs, patches of them for convolutions."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding

ROWS = 2048
"""Inputs of a layer that are kept: drawn at random where there are more, alike many of each image
but for rounding."""

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
    device = next(model.parameters()).device
    share = ROWS

    def draw(number: int) -> Tensor:
        if number <= share:
            return torch.arange(number)
        return torch.randperm(number, generator=generator)[:share]

    def watch(name: str, layer: Layer) -> torch.utils.hooks.RemovableHandle:
        def look(module: nn.Module, given: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            x = given[0] if given else named["input"]
            kept.setdefault(name, []).append(_rows(layer, x.detach(), draw))

        return layer.register_forward_pre_hook(look, with_kwargs=True)

    training = model.training
    handles = [watch(name, layer) for name, layer in layers.items()]
    try:
        model.eval()
        with torch.no_grad():
            for batch in images.split(_BATCH):
                share = -(-ROWS * len(batch) // len(images))
                model(batch.to(device))
    finally:
        for handle in handles:
            handle.remove()
        model.train(training)
    for name, rows in kept.items():
        layer = layers[name]
        yield name, layer, torch.cat(rows, 0 if isinstance(layer, nn.Embedding) else 1)


def _rows(layer: Layer, given: Tensor, draw: Callable[[int], Tensor]) -> Tensor:
    """Return some of a batch's inputs (groups, m, d) of a layer, or an embedding's tokens (m,).

    `draw` is given how many inputs there are, and returns the numbers of those that are wanted.
    """
    if isinstance(layer, nn.Embedding):
        return given.flatten()
    if isinstance(layer, nn.Linear):
        rows = given.reshape(-1, given.shape[-1])
        return rows[draw(len(rows)).to(rows.device)][None]
    sizes, dilations, strides = layer.kernel_size, layer.dilation, layer.stride
    given = given if given.dim() > len(sizes) + 1 else given[None]  # a single one is no batch
    given = F.pad(given, _padding(layer), _MODES.get(layer.padding_mode, layer.padding_mode))
    if isinstance(layer, nn.Conv1d):
        given, sizes = given[:, :, None], (1, *sizes)
        dilations, strides = (1, *dilations), (1, *strides)
    for axis, (size, dilation, stride) in enumerate(zip(sizes, dilations, strides, strict=True), 2):
        given = given.unfold(axis, dilation * (size - 1) + 1, stride)
    patches = given[..., :: dilations[0], :: dilations[1]].movedim(1, 3)  # (b, h, w, C, *sizes)
    drawn = draw(patches[..., 0, 0, 0].numel()).to(patches.device)
    where = torch.unravel_index(drawn, patches.shape[:3])
    return patches[where].reshape(len(drawn), layer.groups, -1).movedim(1, 0)


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
