"""Local SGD of several models at once, as one model whose tensors have one more dimension."""

from collections.abc import Callable, Iterator, Mapping, Sequence

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
    batches: Sequence[Iterator[Batch]],
    recipe: Recipe,
) -> list[dict[str, Tensor]]:
    """Train k copies of a model, each on batches of its own, as `training.fit` trains each.

    Batches of a step that differ in size are padded, with a weight of zero in the loss; a copy
    that runs out of batches is taken out of the stack.

    Parameters
    ----------
    model
        Gives the architecture, in training mode; without buffers and without dropout.
    start
        The parameters that all copies start from.
    batches
        k sequences of batches.
    recipe
        Rates and precision.

    Returns
    -------
    list
        The parameters of each copy, by name.
    """
    gradient = _gradient_of(model)
    stack = _Stack(start, len(batches))
    trained: dict[int, dict[str, Tensor]] = {}
    while stack.copies:
        drawn = [next(batches[copy], None) for copy in stack.copies]
        trained |= stack.take_out([row for row, batch in enumerate(drawn) if batch is None])
        present = [batch for batch in drawn if batch is not None]
        if present:
            x, y, weight = _padded(present)
            with autocast(x.device, recipe.amp_enabled):
                gradients = gradient(stack.parameters, x, y, weight)
            stack.step(gradients, recipe)
    return [trained[copy] for copy in range(len(batches))]


def _gradient_of(model: nn.Module) -> Callable[..., dict[str, Tensor]]:
    """Return the gradient of the weighted cross entropy, for stacked parameters and batches."""

    def loss(parameters: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        answers = functional_call(model, parameters, (x,))
        return (F.cross_entropy(answers, y, reduction="none") * weight).sum()

    return vmap(grad(loss))


class _Stack:
    """Copies of a model in training: parameters and momenta with one more dimension."""

    def __init__(self, start: Mapping[str, Tensor], k: int) -> None:
        self.start = start
        self.copies = list(range(k))
        """Numbers of the copies that still train, by row of the stack."""
        self.parameters = {name: torch.stack([value] * k) for name, value in start.items()}
        self.momenta = {name: torch.zeros_like(value) for name, value in self.parameters.items()}

    def take_out(self, rows: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Remove some rows; return their parameters by the numbers of the copies."""
        if not rows:
            return {}
        ended = {
            self.copies[row]: {name: value[row].clone() for name, value in self.parameters.items()}
            for row in rows
        }
        stay = [row for row in range(len(self.copies)) if row not in rows]
        self.copies = [self.copies[row] for row in stay]
        self.parameters = {name: value[stay] for name, value in self.parameters.items()}
        self.momenta = {name: value[stay] for name, value in self.momenta.items()}
        return ended

    def step(self, gradients: dict[str, Tensor], recipe: Recipe) -> None:
        """Take a step of SGD with momentum, weight decay and the proximal term."""
        for name, value in self.parameters.items():
            slope = gradients[name].add_(value, alpha=recipe.weight_decay)
            if recipe.prox_mu:
                slope.add_(value - self.start[name], alpha=recipe.prox_mu)
            momentum = self.momenta[name].mul_(recipe.momentum).add_(slope)
            value.sub_(momentum, alpha=recipe.lr)


def _padded(batches: Sequence[Batch]) -> tuple[Tensor, Tensor, Tensor]:
    """Stack batches: images (k, b, C, H, W), labels (k, b), and weights (k, b) of the mean.

    A short one is filled up with its own first sample: of one that nobody has, as an image of
    zeros, a model may make NaN, and NaN with a weight of zero is NaN.
    """
    sizes = [len(y) for _, y in batches]
    most = max(sizes)
    first, labels = batches[0]
    x = first.new_zeros(len(batches), most, *first.shape[1:])
    y = labels.new_zeros(len(batches), most)
    weight = torch.zeros(len(batches), most, device=first.device)  # samples may be whole numbers
    for row, (images, classes) in enumerate(batches):
        size = sizes[row]
        x[row, :size], y[row, :size], weight[row, :size] = images, classes, 1 / size
        x[row, size:], y[row, size:] = images[0], classes[0]
    return x, y, weight
