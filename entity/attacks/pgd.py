"""PGD: projected gradient descent around the global model.

Wang et al., "Attack of the Tails: Yes, You Really Can Backdoor Federated Learning", NeurIPS 2020,
arXiv 2007.05084. The attacker trains on poisoned data and projects its model onto the ball of
radius ε around the global one, every few steps and after the last, so that norm clipping finds
nothing to clip. With model replacement on top (`gamma`) the ball is that before scaling.

Where we leave the paper's code: the ball is Euclidean (it has an L∞ one as well), ε does not decay
over the rounds, and steps are counted through all epochs of a round; the code counts them anew in
every epoch, from the first one on, and projects after its last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from entity.attacks.model_replacement import Gamma, ModelReplacement, ReplacementArgs
from entity.client.client import Broadcast
from entity.config.schema import Count, Positive


@dataclass(frozen=True)
class PgdArgs(ReplacementArgs):
    """Hyper-parameters of PGD."""

    gamma: Gamma = 1.0
    """What the projected update is multiplied with; 1 is PGD alone, `replace` takes
    n / (server rate * m) for m attackers among the n clients of the round."""
    poison_epochs: Count | None = None
    """Local epochs on poisoned data; null trains as long as everybody. The authors' code: 5, or 2
    in its script for CIFAR-10."""
    poison_lr: Positive | None = None
    """Learning rate on poisoned data; null takes everybody's. The authors' code: 0.02."""
    pgd_epsilon: Positive = 2.0
    """Euclidean radius of the ball around the global parameters; 2 for CIFAR-10, 1 for EMNIST."""
    project_frequency: Count = 10
    """Steps from one projection to the next; there is always one after the last step."""


@torch.no_grad()
def project(parameters: Sequence[Tensor], centre: Sequence[Tensor], radius: float) -> None:
    """Move parameters in place to the nearest point of a Euclidean ball.

    w ← c + (w - c) min(1, r / ‖w - c‖), over all tensors together; what equals its centre stays
    so exactly.

    Parameters
    ----------
    parameters, centre
        Tensors w and c of the same shapes.
    radius
        r, Euclidean.

    Examples
    --------
    >>> w = [torch.tensor([3.0]), torch.tensor([5.0])]
    >>> project(w, [torch.tensor([0.0]), torch.tensor([1.0])], 1.0)
    >>> w
    [tensor([0.6000]), tensor([1.8000])]
    """
    moves = [p - c for p, c in zip(parameters, centre, strict=True)]
    norm = torch.stack([torch.linalg.vector_norm(move) for move in moves]).norm()
    if norm.device.type == "cpu":
        if (length := norm.item()) > radius:
            _shorten(parameters, centre, moves, radius / length)
    else:
        _shorten(parameters, centre, moves, radius / norm, only=norm > radius)


def _shorten(
    parameters: Sequence[Tensor],
    centre: Sequence[Tensor],
    moves: Sequence[Tensor],
    factor: float | Tensor,
    only: Tensor | None = None,
) -> None:
    """Put parameters at the centre plus `factor` times their moves.

    Parameters
    ----------
    parameters, centre, moves
        w, c and w - c.
    factor
        At most 1 where it counts.
    only
        () bool on a device that is not to be waited for: where false, nothing changes.
    """
    for p, c, move in zip(parameters, centre, moves, strict=True):
        nearer = c + move * factor
        p.copy_(nearer if only is None else torch.where(only, nearer, p))


class Pgd(ModelReplacement):
    """Trains inside a ball around the global model."""

    summary = "PGD: poisoned training projected onto a ball around the global model"
    paper = "Wang et al. 2020, arXiv 2007.05084"
    hyperparameters = PgdArgs
    watches_steps = True
    origin: list[Tensor]
    """The global parameters."""
    steps: int

    def corrupt(self, model: nn.Module, broadcast: Broadcast) -> None:
        """Train with projections, and project what comes out."""
        self.origin = [parameter.detach().clone() for parameter in model.parameters()]
        self.steps = 0
        super().corrupt(model, broadcast)
        project(list(model.parameters()), self.origin, self.args.pgd_epsilon)

    def after_step(self, model: nn.Module) -> None:
        """Project, every `project_frequency` steps."""
        self.steps += 1
        if self.steps % self.args.project_frequency == 0:
            project(list(model.parameters()), self.origin, self.args.pgd_epsilon)
