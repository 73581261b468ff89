"""How concentrated an update of the output layer is: few classes, or all alike.

Rieger et al., "DeepSight: Mitigating Backdoor Attacks in Federated Learning Through Deep Model
Inspection", NDSS 2022, arXiv 2201.00763.
"""

import torch
from torch import Tensor, nn

from entity.models import head_of
from entity.updates import Updates


def output_layer(updates: Updates, model: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Return the updates of its weights (n, K, H) and biases (n, K), None without any; float64.

    `model` is a classifier of the federation, whose last linear layer has K classes.
    """
    name, head = head_of(model)

    def deltas(part: str) -> Tensor:
        slot = updates.spec.slot(f"{name}.{part}")
        return slot.of(updates.weights).double() - slot.of(updates.global_weights).double()

    return deltas("weight"), None if head.bias is None else deltas("bias")  # pyright: ignore[reportUnnecessaryComparison]


def normalised_energies(weights: Tensor, biases: Tensor | None) -> Tensor:
    """Return the normalised update energies NEUP (n, K).

    e_c = |delta b_c| + sum_h |delta W_ch| for class c, and NEUP_c = e_c^2 / sum_k e_k^2.

    Parameters
    ----------
    weights
        (n, K, H) updates of the output layer's weights.
    biases
        (n, K) of its biases.
    """
    energy = weights.abs().sum(2)
    if biases is not None:
        energy = energy + biases.abs()
    peak = energy.amax(1, keepdim=True)
    squares = torch.where(peak > 0, energy / peak, 1) ** 2
    return squares / squares.sum(1, keepdim=True)


def threshold_exceedings(energies: Tensor, factor: float) -> Tensor:
    """Return for each row of energies (n, K) how many exceed max(factor, 1 / K) of its highest.

    Examples
    --------
    >>> neup = torch.tensor([[9.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]) / 12
    >>> threshold_exceedings(neup, 0.01)
    tensor([1., 4.], dtype=torch.float64)
    """
    limit = max(factor, 1 / energies.shape[1]) * energies.amax(1, keepdim=True)
    return (energies > limit).sum(1).double()
