"""The visible part of an update: what a layer's inputs on clean images can account for.

The gradient of a linear layer's weights is a sum of outer products of its output gradients and its
inputs (of a convolution: of patches of its inputs; Saha et al., "Gradient Projection Memory for
Continual Learning", ICLR 2021, arXiv 2103.09762). So training on clean images moves weights
along inputs that clean images have. A trigger makes inputs that clean images do not have, and
what is learned of it lies along these. On clean images it cannot be seen.

With the inputs A (m, d) of a layer on clean images, a layer's update D (out, d) is seen there as
D A^T. Its visible part is the ridge estimate of D from that,

    V = D C (C + mu I)^-1,   C = A^T A / m,   mu = strength * trace(C) / d:

the least update that changes the layer's outputs on the clean images in nearly the same way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

import torch
from torch import Tensor, nn

from entity.layout import BLOCK, ParamSpec, Slot, plain_names
from entity.server.layer_inputs import layer_inputs
from entity.updates import Updates

VIEWED = 0.9
"""Share of a model's parameters of which less should not be looked at."""

FEW = 50
"""Clean images of which fewer show too little: the least that was tried."""


@dataclass(frozen=True)
class View:
    """One layer, and what of its updates can be seen on clean images.

    A layer's weights and biases are `groups` linear maps of d inputs to `out` outputs; a bias
    belongs to a last input that is always 1. An embedding of V tokens is a map of V one-hot inputs.
    """

    name: str
    slots: tuple[Slot, ...]
    """Of its weight, and of its bias if it has one."""
    inputs: Tensor
    """(groups, m, d) inputs on the clean images; of an embedding (m,) tokens."""
    strength: float
    """Above 0: a direction along which the inputs' mean square is this times that of an entry
    keeps half of its update, and one along which it is less keeps less."""

    @property
    def tokens(self) -> bool:
        """Whether the layer is an embedding."""
        return self.inputs.dim() == 1

    def of(self, vectors: Tensor) -> Tensor:
        """Return this layer's part (..., groups, out, d) of vectors (..., P)."""
        if self.tokens:
            return self.slots[0].of(vectors).mT.unsqueeze(-3)
        groups = len(self.inputs)
        before = vectors.shape[:-1]
        parts = [
            slot.of(vectors).reshape(*before, groups, slot.shape[0] // groups, -1)
            for slot in self.slots
        ]
        return torch.cat(parts, -1)

    def put(self, vector: Tensor, part: Tensor) -> None:
        """Write a part (groups, out, d) of this layer into a vector (P,)."""
        if self.tokens:
            self.slots[0].of(vector).copy_(part[0].mT)
            return
        ends = [part.shape[-1] - len(self.slots) + 1, 1][: len(self.slots)]
        for slot, columns in zip(self.slots, part.split(ends, -1), strict=True):
            slot.of(vector).copy_(columns.reshape(slot.shape))

    def visible(self, part: Tensor) -> Tensor:
        """Return the visible part of updates (..., groups, out, d) of this layer."""
        if self.tokens:
            return part * self.shown(part.shape[-1]).to(part)
        # Maps of several clients are rows of one: (..., groups, out, d) to (groups, rows, d).
        rows = part.movedim(-3, 0).flatten(1, -2)
        seen = self._ridge(rows.to(self.inputs.device)).to(part.device)
        return seen.unflatten(1, (*part.shape[:-3], part.shape[-2])).movedim(0, -3)

    def shown(self, tokens: int) -> Tensor:
        """Return which share (V,) of each token's row of an embedding can be seen."""
        counts = torch.bincount(self.inputs, minlength=tokens).float()
        return counts / (counts + self.strength * counts.mean())

    @cached_property
    def _ridge(self) -> "Ridge":
        inputs = self.inputs
        if len(self.slots) > 1:
            inputs = torch.cat([inputs, inputs.new_ones(*inputs.shape[:-1], 1)], -1)
        return Ridge(inputs, self.strength)


class Ridge:
    """The ridge regression of linear maps on their inputs, factored once for many updates.

    Parameters
    ----------
    inputs
        (groups, m, d) what each map is applied to on clean images.
    strength
        As of `View`.
    """

    def __init__(self, inputs: Tensor, strength: float) -> None:
        m, d = inputs.shape[-2:]
        a = inputs.double() / m**0.5
        mean = a.square().sum((-2, -1), keepdim=True) / d
        self.nothing = ~((mean > 0) & mean.isfinite())
        """(groups, 1, 1) whether a map has no input but zero, or one that is not finite, as a
        model that has diverged makes them: nothing is seen then."""
        # In single precision there is no room for the inverse of tiny moments. What follows does
        # not depend on the scale of the inputs, and that by a power of two changes no digit.
        exponent = torch.where(self.nothing, 0, torch.frexp(mean).exponent // 2)
        a *= torch.ldexp(torch.ones_like(mean), -exponent)
        mean = torch.ldexp(mean, -2 * exponent)
        if self.nothing.any():
            a = torch.where(self.nothing, 0.0, a)
        dual = m < d  # the smaller system has a row an input, or one an entry
        moments = a @ a.mT if dual else a.mT @ a
        mu = torch.where(self.nothing, 1.0, strength * mean)
        ridge = mu * torch.eye(min(m, d), dtype=a.dtype, device=a.device)
        solved = torch.cholesky_solve(
            a if dual else moments, torch.linalg.cholesky(moments + ridge)
        )
        # The system is solved in double precision; what it is applied to has no more than single.
        self.factors = [a.mT.float(), solved.float()] if dual else [solved.float()]
        """Their product is C (C + mu I)^-1."""

    def __call__(self, update: Tensor) -> Tensor:
        """Return the visible part of updates (groups, out, d)."""
        part = update.float()
        for factor in self.factors:
            part = part @ factor
        if self.nothing.any():
            part = torch.where(self.nothing, 0.0, part)
        return part.to(update.dtype)


def visible_part(update: Tensor, inputs: Tensor, strength: float) -> Tensor:
    """Return the visible part (groups, out, d) of the updates of linear maps.

    Parameters
    ----------
    update
        (groups, out, d) differences of weights.
    inputs
        (groups, m, d) what each map is applied to on clean images.
    strength
        As of `View`.

    Examples
    --------
    >>> seen = torch.tensor([[[3.0, 0.0], [-3.0, 0.0]]])
    >>> visible_part(torch.tensor([[[1.0, 1.0]]]), seen, strength=1.0).tolist()
    [[[0.6666666865348816, 0.0]]]
    """
    return Ridge(inputs, strength)(update)


def views(
    model: nn.Module,
    spec: ParamSpec,
    images: Tensor,
    strength: float,
    generator: torch.Generator,
) -> Iterator[View]:
    """Yield a view of each linear layer, convolution (1-d, 2-d) and embedding that images reach.

    A layer whose weight is computed of others (`weight_norm`, `spectral_norm`) has none.

    Parameters
    ----------
    model
        Holds the model that updates start from, on the device that computes.
    spec
        The model's layout.
    images
        (S, ...) clean inputs of the model.
    strength
        As of `View`.
    generator
        On the CPU; draws which patches of convolutions are looked at.
    """
    names = plain_names([name for name, _ in model.named_parameters(remove_duplicate=False)])
    for name, _, inputs in layer_inputs(model, images, generator):
        own = [names.get(f"{name}.{each}") for each in ("weight", "bias")]
        slots = [spec.slot(each) for each in own if each is not None]
        if own[0] is None:
            continue
        yield View(name, tuple(slots), inputs, strength)


def visible_update(update: Tensor, of: Sequence[View]) -> Tensor:
    """Return the visible part (P,) of an update (P,) of a whole model.

    Parameters that no view is of keep their update: scales of normalisation layers, position
    embeddings, layers of other kinds.

    Parameters
    ----------
    update
        (P,) differences of the model's parameters.
    of
        Its views.
    """
    answer = update.clone()
    for view in of:  # of weights that two layers share, what both see is left
        view.put(answer, view.visible(view.of(answer)))
    return answer


def turned_back(step: Tensor, of: Sequence[View]) -> Tensor:
    """Return the visible part (P,) of a step that an optimiser made of visible ones.

    It divided them entry by entry. Embeddings keep theirs, and layers that share weights with one:
    a row that nobody moved is still where it was.

    Parameters
    ----------
    step
        (P,) what the optimiser moves the parameters by.
    of
        The views of the model that it started from.
    """
    words = {view.slots[0] for view in of if view.tokens}
    return visible_update(step, [view for view in of if view.slots[0] not in words])


def share_kept(part: Tensor, whole: Tensor) -> float:
    """Return the norm of a part over that of the whole; 1 for a step of zero or not finite."""
    length, kept = (float(each.double().norm()) for each in (whole, part))
    return kept / length if 0 < length < inf and kept < inf else 1.0


def viewed(of: Sequence[View]) -> int:
    """Return how many of a model's parameters some views are of."""
    ends = {slot.start: slot.stop for view in of for slot in view.slots}
    return sum(stop - start for start, stop in ends.items())


def shortcomings(of: Sequence[View], spec: ParamSpec, images: int) -> dict[str, str]:
    """Say what views of a whole model lack, by kind; nothing where they are good.

    Parameters
    ----------
    of
        The views.
    spec
        The model's layout.
    images
        How many clean inputs they are from.
    """
    said, share = dict[str, str](), viewed(of) / spec.num_parameters
    if share < VIEWED:
        said["views"] = (
            f"only {100 * share:.0f} % of the model's parameters are of modules through which the "
            "clean images went and whose inputs are looked at (linear layers, convolutions, "
            "embeddings); what the others learn passes as it is."
        )
    if images < FEW:
        said["images"] = (
            f"{images} clean images show little of what clients learn, and the rest is dropped; "
            f"give the server {FEW} or more (server.held_out)."
        )
    return said


def add_agreed_words(
    step: Tensor, updates: Updates, whose: Sequence[int], factors: Tensor, of: Sequence[View]
) -> None:
    """Add to a visible step (P,) what most clients agree on of words that clean samples have not.

    A vocabulary has more words than a few clean samples, and the row of an embedding moves by its
    own word alone. So of a row, as far as it cannot be seen, the coordinatewise median over clients
    is taken: a word that fewer than half of them use stays where it is.

    Parameters
    ----------
    step
        Changed in place, where embeddings are.
    updates
        Of n clients.
    whose
        The rows of those who count; without any, nothing is added.
    factors
        (n,) what each update is multiplied with.
    of
        The model's views.
    """
    scale = factors[whose][:, None, None].to(step)
    unseen: dict[Slot, Tensor] = {}  # of an embedding that two layers share, what neither sees
    for view in of if whose else ():
        if view.tokens:
            slot = view.slots[0]
            hidden = 1 - view.shown(slot.shape[0]).to(step)
            unseen[slot] = unseen.get(slot, 1.0) * hidden
    for slot, hidden in unseen.items():
        own, start = slot.of(updates.weights)[whose], slot.of(updates.global_weights)
        rows = slot.of(step)
        for words in torch.arange(len(rows)).split(max(1, BLOCK // rows.shape[1])):
            agreed = _median((own[:, words] - start[words]) * scale)
            rows[words] += agreed * hidden[words, None]


def _median(rows: Tensor) -> Tensor:
    """Return the median over the first axis; of an even number, the mean of the middle two."""
    ordered = rows.sort(0).values
    return ordered[(len(rows) - 1) // 2] / 2 + ordered[len(rows) // 2] / 2  # no sum overflows
