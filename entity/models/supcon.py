"""A classifier's twin for supervised contrastive learning: the same network, seen as an encoder.

Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, arXiv 2004.11362, as Chameleon
uses it: what the encoder learns is at once in the classifier, as both are the same parameters.
(DROP's code keeps a second network without the head and copies between the two.)
"""

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from entity.models.classifier import head_of


class SupConTwin(nn.Module):
    """A view of any classifier with a linear head; the parameters are the classifier's own.

    Examples
    --------
    >>> import torch
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> twin = SupConTwin(model)
    >>> twin(torch.ones(5, 1, 2, 2)).shape, len(twin.encoder)
    (torch.Size([5, 3]), 2)

    Raises
    ------
    ValueError
        If the model has no linear layer.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._head = head_of(model)[0]

    @property
    def head(self) -> nn.Linear:
        """The classifier's output layer, which the contrastive loss does not reach."""
        head = self.model.get_submodule(self._head)
        assert isinstance(head, nn.Linear)
        return head

    @property
    def encoder(self) -> list[nn.Parameter]:
        """The parameters of everything before the head, as far as they are trained."""
        own = {id(parameter) for parameter in self.head.parameters()}
        return [p for p in self.model.parameters() if id(p) not in own and p.requires_grad]

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate activations (b, F) of images (b, C, H, W), float32."""
        # A compiled model does not look whether a hook has come since.
        with inputs_of(self.head) as seen, torch.compiler.set_stance("force_eager"):
            self.model(x)
        return seen[-1].flatten(1).float()

    def forward(self, x: Tensor) -> Tensor:
        """Return the features (b, F) with Euclidean norm 1."""
        return F.normalize(self.features(x), dim=1)


def encoder_fault(model: nn.Module) -> str:
    """Say why a model has no encoder that could be trained; "" where it has one."""
    try:
        trained = SupConTwin(model).encoder
    except ValueError as error:
        return str(error)
    return "" if trained else "nothing is trained before the model's last linear layer"


@contextmanager
def inputs_of(layer: nn.Module) -> Generator[list[Tensor]]:
    """Collect what a layer is given; the way to the features of any model."""
    seen: list[Tensor] = []

    def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        seen.append(inputs[0])

    hook = layer.register_forward_pre_hook(look)
    try:
        yield seen
    finally:
        hook.remove()
