"""Constrain-and-scale and train-and-scale: replacement that anomaly detection overlooks.

Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020, arXiv 1807.00459.
Constrain-and-scale minimises `α CE + (1 - α) L_ano`, where L_ano is the distance from the
global model g that a detector would measure, and then scales as model replacement does.
Train-and-scale knows the server's bound S on the norm and scales the update to exactly S.

Where we leave the paper's code: its α is 1, which switches the constraint off; ours is 0.5. It
scales to S only what is longer after the scaling by γ; ours also makes shorter updates S long. (A
benchmark's version takes L_ano from NumPy, so it has no gradient and constrains nothing.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from entity.attacks.model_replacement import ModelReplacement, ReplacementArgs, scaled
from entity.client.client import Broadcast
from entity.config.schema import Fraction, Positive
from entity.layout import ModelState
from entity.seeding import Seeds
from entity.updates import Updates


@dataclass(frozen=True)
class ConstrainAndScaleArgs(ReplacementArgs):
    """Hyper-parameters of constrain-and-scale and train-and-scale."""

    alpha: Fraction = 0.5
    """Weight of the cross entropy beside the anomaly loss; 1 leaves that out."""
    anomaly: Literal["l2", "cosine"] = "l2"
    """L_ano: the Euclidean distance of the parameters from g, or 1 minus their cosine with g."""
    norm_bound: Positive | None = None
    """S, Euclidean norm of the sent update (train-and-scale), instead of `gamma`; null is off."""


def anomaly_loss(
    parameters: Sequence[Tensor], origin: Sequence[Tensor], kind: Literal["l2", "cosine"]
) -> Tensor:
    """Return how far parameters are from where they started, as a scalar with a gradient.

    Parameters
    ----------
    parameters, origin
        Tensors of the same shapes: the model's, and the global model's.
    kind
        Euclidean distance, or 1 minus the cosine.

    Examples
    --------
    >>> w, g = [torch.tensor([3.0, 5.0])], [torch.tensor([0.0, 1.0])]
    >>> anomaly_loss(w, g, "l2")
    tensor(5.)
    """
    if kind == "l2":
        return _norm([p - o for p, o in zip(parameters, origin, strict=True)])
    inner = torch.stack([(p * o).sum() for p, o in zip(parameters, origin, strict=True)]).sum()
    return 1 - inner / (_norm(parameters) * _norm(origin)).clamp_min(1e-12)


def _norm(parts: Sequence[Tensor]) -> Tensor:
    # Of norms, not of a sum of squares: the gradient of a root at 0, where training starts, is NaN.
    return torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(p) for p in parts]))


class ConstrainAndScale(ModelReplacement):
    """Stays close to the global model while it trains, then scales."""

    summary = "constrain-and-scale: a loss that keeps close to the global model, then scaling"
    hyperparameters = ConstrainAndScaleArgs
    origin: list[Tensor]
    """The global parameters."""

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Remember the global model, and train."""
        self.origin = [parameter.detach().clone() for parameter in model.parameters()]
        super().corrupt(model, broadcast)

    def local_loss(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """Return α CE + (1 - α) L_ano."""
        alpha = self.args.alpha
        anomaly = anomaly_loss(list(model.parameters()), self.origin, self.args.anomaly)
        return alpha * super().local_loss(model, x, y) + (1 - alpha) * anomaly

    def craft(self, trained: ModelState, broadcast: Broadcast) -> ModelState:
        """Scale to the norm bound, where there is one, else by γ."""
        if self.args.norm_bound is None:
            return super().craft(trained, broadcast)
        delta = trained.weights.double() - broadcast.state.weights.double()
        norm = delta.norm().item()
        factor = self.args.norm_bound / norm if norm else 1.0
        return scaled(trained, broadcast.state, factor)

    @classmethod
    def collude(cls, args: Any, updates: Updates, malicious: list[int], seeds: Seeds) -> None:
        """Scale by n / (η m), unless to a norm bound; looks at the colluders' rows alone."""
        if args.norm_bound is None:
            super().collude(args, updates, malicious, seeds)

    @classmethod
    def colludes(cls, args: Any) -> bool:
        """Without a norm bound, as model replacement does."""
        return args.norm_bound is None and super().colludes(args)
