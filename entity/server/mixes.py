"""What a client's own mix of classes makes of its update: the gradients of clean images by class.

Clients whose data differ send updates that differ, and those with like classes send like ones. That
is no push. What training on more of one class does to a model, the server can see on its own clean
images: it takes the gradients of those that the model calls by one class, a few images at a time,
and what is left of updates outside of their span is not accounted for by any mix of the classes.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from entity.layout import ParamSpec

EACH = 3
"""Gradients of a class: some of its images are harder than others."""

MOST = 32
"""Gradients at most, which bounds their memory; of more classes, those with the most images."""

NOTHING = 1e-4
"""A row of which less than this share is left outside of a span is in it but for rounding."""


def class_gradients(model: nn.Module, spec: ParamSpec, images: Tensor) -> Tensor:
    """Return gradients of the cross entropy of images, by the class that the model gives them.

    Parameters
    ----------
    model
        Gives logits (b, classes). It is left in evaluation mode.
    spec
        Its layout.
    images
        (S, ...) clean inputs, without labels.

    Returns
    -------
    Tensor
        (k, P) on the CPU, k up to `MOST`: rows of length one. Those without a direction, as where
        the model's answers are not finite, are left out.
    """
    parameters = dict(model.named_parameters())
    learned = [slot for slot in spec.parameters if parameters[slot.name].requires_grad]
    watched = [parameters[slot.name] for slot in learned]
    rows = torch.zeros(MOST, spec.num_parameters)
    model.eval()
    # Recurrent layers of cuDNN have no backward pass in evaluation mode.
    recurrent = any(isinstance(each, nn.RNNBase) for each in model.modules())
    with torch.backends.cudnn.flags(enabled=torch.backends.cudnn.enabled and not recurrent):
        images = images.to(next(model.parameters()).device)
        for row, (batch, label) in zip(rows, _batches(model, images), strict=False):
            loss = F.cross_entropy(model(batch), label)
            found = torch.autograd.grad(loss, watched, materialize_grads=True)
            for slot, part in zip(learned, found, strict=True):
                row[slot.start : slot.stop] = part.flatten()
    lengths = rows.norm(dim=1, keepdim=True)
    good = (lengths[:, 0] > 0) & lengths[:, 0].isfinite()
    return rows[good] / lengths[good]


def without(rows: Tensor, span: Tensor) -> Tensor:
    """Return rows (n, D) less what lies in the span of others (k, D); zero where nothing is left.

    Directions in which the others are together less than a thousandth as long as in their main one
    count as rounding, and stay.

    Examples
    --------
    >>> rows, span = torch.tensor([[3.0, 4.0], [2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> without(rows, span)
    tensor([[0., 4.],
            [0., 0.]])
    """
    if not len(span):
        return rows
    inner = (span @ span.T).double()
    along = (rows @ span.T).double() @ torch.linalg.pinv(inner, rtol=1e-6, hermitian=True)
    left = rows - along.to(rows) @ span
    inside = left.norm(dim=1) <= NOTHING * rows.norm(dim=1)
    return left.masked_fill(inside[:, None], 0)


def _batches(model: nn.Module, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield up to `MOST` batches of images that the model calls by one class, and their labels."""
    with torch.no_grad():
        called = torch.cat([model(batch).argmax(1) for batch in images.split(100)])
    counts = called.bincount()
    classes = counts.argsort(descending=True, stable=True)[: int((counts > 0).sum())].tolist()
    each = max(1, min(EACH, MOST // len(classes)))
    for label in classes[:MOST]:
        for rows in (called == label).nonzero()[:, 0].tensor_split(each):
            if len(rows):
                yield images[rows], called[rows]
