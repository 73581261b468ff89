"""The loops over batches that clients, servers and judges share: training and inference."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.sgd import SGD

CPU = torch.device("cpu")

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, x, y) -> scalar."""


@dataclass(frozen=True)
class Recipe:
    """Settings of local SGD, for clients and for servers that train on clean data."""

    lr: float
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: int
    amp_enabled: bool = False
    """Run the forward pass under autocast to bfloat16."""
    prox_mu: float = 0.0
    """mu of FedProx: how strongly weights are drawn back to where training began."""


def cross_entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean cross entropy of a batch.

    Parameters
    ----------
    model
        From images to logits (b, classes).
    x, y
        Images (b, C, H, W) and labels (b,).
    """
    return F.cross_entropy(model(x), y)


def fit(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    recipe: Recipe,
    *,
    loss: Loss = cross_entropy,
    after_step: Callable[[nn.Module], None] | None = None,
) -> None:
    """Train a model in place, with a fresh optimiser and in training mode.

    With `prox_mu` above 0 it minimises the loss plus mu/2 ||w - w_t||^2, w_t the weights that it
    comes with, as FedProx does (Li et al., "Federated Optimization in Heterogeneous Networks",
    MLSys 2020, arXiv 1812.06127): mu (w - w_t) is added to the gradient.

    Parameters
    ----------
    model
        The module, on the device of the batches.
    batches
        Pairs of images (b, C, H, W) in [-1, 1] and labels (b,), over all epochs.
    recipe
        Rates and precision; `batches` already follows its batch size and epochs.
    loss
        What to minimise; attacks replace it.
    after_step
        Called with the model after every optimiser step; attacks project here.
    """
    model.train()
    optimiser = new_optimiser(model, recipe)
    start = [each.detach().clone() for each in model.parameters()] if recipe.prox_mu else []
    for x, y in batches:
        with autocast(x.device, recipe.amp_enabled):
            value = loss(model, x, y)
        optimiser.zero_grad()
        value.backward()
        if start:
            draw_back(model, start, recipe.prox_mu)
        optimiser.step()
        if after_step is not None:
            after_step(model)


@torch.no_grad()
def draw_back(model: nn.Module, start: Sequence[Tensor], mu: float) -> None:
    """Add the gradient of mu/2 ||w - w_t||^2 to that of the loss.

    Parameters
    ----------
    model
        With gradients; those of its weights that have none stay so.
    start
        w_t, tensors like the model's parameters and in their order.
    mu
        Weight of the proximal term.
    """
    for value, first in zip(model.parameters(), start, strict=True):
        if value.grad is not None:
            value.grad.add_(value - first, alpha=mu)


def new_optimiser(model: nn.Module, recipe: Recipe) -> SGD:
    """Return the optimiser of a client's training."""
    return SGD(model.parameters(), recipe.lr, recipe.momentum, recipe.weight_decay)


def autocast(device: torch.device, enabled: bool) -> AbstractContextManager[object]:
    """Return autocast to bfloat16, or nothing where it is off."""
    return torch.autocast(device.type, torch.bfloat16) if enabled else nullcontext()


def shuffled(
    size: int, batch_size: int, epochs: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield index batches of `epochs` passes over `size` samples, each in a new random order.

    The last batch of a pass is smaller where it must be, but never a single sample beside
    larger batches: BatchNorm cannot train on one.

    Parameters
    ----------
    size
        Samples.
    batch_size, epochs
        Samples in a batch; passes over all of them.
    generator
        Draws the orders; on the CPU.
    """
    for _ in range(epochs):
        order = torch.randperm(size, generator=generator)
        for batch in order.split(batch_size):
            if len(batch) > 1 or min(size, batch_size) == 1:
                yield batch


@torch.inference_mode()
def logits(
    model: nn.Module,
    x: Tensor,
    batch_size: int = 500,
    prepare: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return a model's logits (N, classes) for images (N, C, H, W), in evaluation mode.

    The model's training mode is restored afterwards.

    Parameters
    ----------
    model
        On the device of the images.
    x
        In [-1, 1], or what `prepare` makes such images of.
    batch_size
        Images that are passed through the model at once.
    prepare
        Called with each batch.
    """
    was_training = model.training
    model.eval()
    batches = x.split(batch_size) if len(x) else ()
    answers = [model(batch if prepare is None else prepare(batch)) for batch in batches]
    model.train(was_training)
    return torch.cat(answers) if answers else torch.zeros(0, device=x.device)


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the share of images that a model classifies as labelled; NaN without images.

    An answer of NaN is wrong.

    Parameters
    ----------
    model
        From images to logits.
    x, y
        Images (N, C, H, W) and labels (N,).
    """
    if len(y) == 0:
        return float("nan")
    answers = logits(model, x)
    right = (answers.argmax(1) == y) & ~answers.isnan().any(1)
    return int(right.sum()) / len(y)
