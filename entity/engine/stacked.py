"""Local SGD of several models at once, as one model whose tensors have one more dimension."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from entity.training import Recipe, autocast

Batch = tuple[Tensor, Tensor]
"""Images (b, C, H, W) and labels (b,)."""


def fit_stacked(
    model: nn.Module,
    start: Mapping[str, Tensor],
    lessons: Sequence[Iterator[Batch]],
    recipe: Recipe,
) -> list[dict[str, Tensor]]:
    """Train k copies of a model, each on batches of its own, as `loops.fit` trains each.

    Batches of a step that differ in size are padded, with a weight of zero in the loss; a copy
    that runs out of batches is taken out of the stack.

    Parameters
    ----------
    model
        Gives the architecture, in training mode; without buffers and without dropout.
    start
        The parameters that all copies start from.
    lessons
        k sequences of batches.
    recipe
        Rates and precision.

    Returns
    -------
    list
        The parameters of each copy, by name.
    """
    names = list(start)
    values = [torch.stack([start[name]] * len(lessons)) for name in names]
    momenta = [torch.zeros_like(value) for value in values]
    active = list(range(len(lessons)))
    trained: dict[int, dict[str, Tensor]] = {}

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        answers = functional_call(model, parameters, (x,))
        return (F.cross_entropy(answers, y, reduction="none") * weight).sum()

    gradient = vmap(grad(loss))
    while active:
        batches = [next(lessons[each], None) for each in active]
        stay = [place for place, batch in enumerate(batches) if batch is not None]
        for place, each in enumerate(active):
            if batches[place] is None:
                trained[each] = {
                    name: value[place].clone() for name, value in zip(names, values, strict=True)
                }
        if len(stay) < len(active):
            active = [active[place] for place in stay]
            values = [value[stay] for value in values]
            momenta = [momentum[stay] for momentum in momenta]
        if not active:
            break
        x, y, weight = _padded([batch for batch in batches if batch is not None])
        with autocast(x.device, recipe.bfloat16):
            answer = gradient(dict(zip(names, values, strict=True)), x, y, weight)
        for place, name in enumerate(names):
            slope = answer[name].add_(values[place], alpha=recipe.weight_decay)
            values[place].sub_(momenta[place].mul_(recipe.momentum).add_(slope), alpha=recipe.lr)
    return [trained[each] for each in range(len(lessons))]


def _padded(batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Stack batches: images (k, b, C, H, W), labels (k, b), and weights (k, b) of the mean."""
    sizes = [len(y) for _, y in batches]
    most = max(sizes)
    first, labels = batches[0]
    x = first.new_zeros(len(batches), most, *first.shape[1:])
    y = labels.new_zeros(len(batches), most)
    weight = first.new_zeros(len(batches), most)
    for place, (images, classes) in enumerate(batches):
        size = sizes[place]
        x[place, :size], y[place, :size], weight[place, :size] = images, classes, 1 / size
    return x, y, weight
