"""The optimiser of local training: PyTorch's fused SGD, without what its class brings along.

The first `torch.optim.SGD` of a process imports PyTorch's compiler, which takes as long as PyTorch
itself: seconds of every worker, every node's reply and every run. Its function does not.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.sgd import sgd


class SGD:
    """Stochastic gradient descent, to the bit that of `torch.optim.SGD(..., fused=True)`.

    Parameters
    ----------
    parameters
        What is trained; those without a gradient stay as they are.
    lr
        Learning rate.
    momentum
        Of the heavy ball; 0 keeps none.
    weight_decay
        Times the weights, added to their gradients.
    """

    def __init__(
        self, parameters: Iterable[Tensor], lr: float, momentum: float, weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self._moments: list[Tensor | None] = [None] * len(self.parameters)

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take a step down the gradients."""
        moving = [n for n, each in enumerate(self.parameters) if each.grad is not None]
        first = [n for n in moving if self._moments[n] is None]
        later = [n for n in moving if self._moments[n] is not None]
        for places in filter(None, (first, later)):  # the kernel takes only one of both kinds
            self._step(places)

    def _step(self, places: list[int]) -> None:
        parameters = [self.parameters[n] for n in places]
        slopes = [each.grad for each in parameters if each.grad is not None]
        moments = [self._moments[n] for n in places]
        sgd(
            parameters,
            slopes,
            moments,
            has_sparse_grad=any(slope.is_sparse for slope in slopes),
            fused=True,
            weight_decay=self.weight_decay,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        for n, moment in zip(places, moments, strict=True):
            self._moments[n] = moment
