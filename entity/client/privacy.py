"""Local differential privacy: honest clients bound and noise what they learn before they send it.

Naseri, Hayes and De Cristofaro, "Local and Central Differential Privacy for Robustness and Privacy
in Federated Learning", NDSS 2022, arXiv 2009.03561. Local DP of the paper protects samples: each
client trains by DP-SGD (Abadi et al., "Deep Learning with Differential Privacy", CCS 2016,
arXiv 1607.00133), whose steps are the mean of the samples' gradients, each cut to the norm C, with
noise N(0, (sigma C)^2) on their sum (`dp_unit = sample`). Central DP, where the server clips and
noises, is the defense `norm_clipping` with `sigma`. With `dp_unit = update` a client is protected:
its update as a whole is cut to C and noised with N(0, (sigma C)^2), as Flower's `LocalDpMod` does.

Where we leave them, and why:

- attackers do neither while they poison, as nobody can make them; before and after they do;
- batches are the shuffled ones of all training, not a sample of Poisson's, momentum and weight
  decay are those of all clients, and no privacy budget (epsilon, delta) is computed;
- BatchNorm statistics are not noised here or anywhere. With `sample` a model with BatchNorm is
  refused, as it has no gradient of one sample; with `update` its statistics leave as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from entity.layout import ModelState, Slot
from entity.training import Recipe, autocast, draw_back, new_optimiser

_MOST = 1 << 26
"""Numbers that the gradients of the samples at work may have at a time."""


@dataclass(frozen=True)
class Privacy:
    """Settings of local differential privacy."""

    clip: float
    """C, the largest norm."""
    noise: float
    """sigma, the noise's standard deviation over C."""
    unit: Literal["sample", "update"]
    """What is cut: the gradient of every sample, or the update."""


def private_update(
    trained: ModelState,
    start: Tensor,
    privacy: Privacy,
    generator: torch.Generator,
    frozen: Iterable[Slot] = (),
) -> ModelState:
    """Return a model whose update is cut to the norm C and noised; its buffers stay.

    Parameters
    ----------
    trained
        The client's model.
    start
        (P,) the weights that it started from.
    privacy
        C and sigma.
    generator
        Draws the noise; on the CPU.
    frozen
        Where the weights lie that training leaves; they are not noised.
    """
    delta = trained.weights.double() - start.double()
    length = float(delta.norm())
    cut = delta * (privacy.clip / length) if length > privacy.clip else delta
    noise = torch.randn(len(start), generator=generator).double()
    for slot in frozen:
        noise[slot.start : slot.stop] = 0
    weights = start.double() + cut + privacy.noise * privacy.clip * noise
    return trained._replace(weights=weights.float())


def fit_privately(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    recipe: Recipe,
    privacy: Privacy,
    generator: torch.Generator,
) -> None:
    """Train a model in place by DP-SGD, otherwise as `training.fit` does.

    Parameters
    ----------
    model
        Without buffers, on the device of the batches; layers that are frozen stay so.
    batches
        Pairs of images (b, C, H, W) in [-1, 1] and labels (b,).
    recipe
        Rates and precision.
    privacy
        C and sigma.
    generator
        Draws the noise; on the CPU, so that every device draws the same.
    """
    model.train()
    optimiser = new_optimiser(model, recipe)
    start = [each.detach().clone() for each in model.parameters()]
    for x, y in batches:
        with autocast(x.device, recipe.amp_enabled):
            sums = clipped_sums(model, x, y, privacy.clip)
        for name, value in _trained(model).items():
            noise = torch.randn(value.shape, generator=generator).to(value.device)
            value.grad = sums[name].add(noise, alpha=privacy.noise * privacy.clip) / len(y)
        if recipe.prox_mu:
            draw_back(model, start, recipe.prox_mu)
        optimiser.step()


def clipped_sums(model: nn.Module, x: Tensor, y: Tensor, clip: float) -> dict[str, Tensor]:
    """Return the sum of the samples' gradients by parameter, each cut to a joint norm of `clip`.

    Frozen parameters have none.

    Parameters
    ----------
    model
        Without buffers.
    x, y
        Images (b, C, H, W) and labels (b,).
    clip
        C.
    """
    parameters = {name: each.detach() for name, each in _trained(model).items()}

    def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, values, (image[None],)), label[None])

    of_samples = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    sums = {name: torch.zeros_like(each) for name, each in parameters.items()}
    for images, labels in _pieces(x, y, sum(each.numel() for each in parameters.values())):
        gradients = of_samples(parameters, images, labels)
        squares = [each.flatten(1).double().square().sum(1) for each in gradients.values()]
        lengths = torch.stack(squares).sum(0).sqrt()
        factors = torch.where(lengths > clip, clip / lengths, 1.0)
        for name, each in gradients.items():
            sums[name] += torch.tensordot(factors.to(each.dtype), each, dims=1)
    return sums


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _pieces(x: Tensor, y: Tensor, parameters: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield a batch in pieces whose samples' gradients fit in memory."""
    size = max(1, _MOST // max(1, parameters))
    return zip(x.split(size), y.split(size), strict=True)
