"""Whether a user's own module is a classifier that a federation can train.

It is tried out before anything is trained, and a fault is reported in one sentence. What would fail
or be wrong later, without a word, is looked for, too: a model travels as a flat vector of float32,
which cannot hold everything, and everybody who asks it hands it the same samples.
"""

from typing import Any

import torch
from torch import Tensor, nn

from entity.config.schema import ConfigError
from entity.layout import ParamSpec
from entity.returned import place, said
from entity.seeding import global_stream

_EXACT = 2**24
"""Whole numbers up to this one are exact as float32."""

_KEPT_OUT = "register such a buffer with persistent=False"


@torch.no_grad()
def examine(name: str, model: nn.Module, two: Tensor, classes: int) -> None:
    """Check that a module has parameters and maps two samples to logits (2, classes).

    The global stream of random numbers is not changed. The module may be: train another one.

    Parameters
    ----------
    name
        The field `model`, for messages.
    model
        The result of the user's function.
    two
        Two samples, as it will be trained on them.
    classes
        The number of logits.

    Raises
    ------
    ConfigError
        If it does not, in evaluation or in training mode; if it changes its input in place; or if
        a flat vector cannot hold what it is made of.
    """
    try:
        _untrainable(model)
        _not_kept(model)
        spec, two = ParamSpec.of(model), two.to(next(model.parameters()).device)
        _no_classifier(model.eval(), two, classes)
        _no_classifier(model.train(), two, classes, " in training mode")
        _grown(spec, ParamSpec.of(model))
    except _Fault as fault:
        raise ConfigError(f'model = "{name}": {fault}.') from fault.__cause__


class _Fault(Exception):
    """What is wrong with a module."""


def _untrainable(model: nn.Module) -> None:
    """Refuse what local SGD cannot train."""
    if next(model.parameters(), None) is None:
        raise _Fault("has no parameters to train")
    trained = {key: each for key, each in model.named_parameters() if each.requires_grad}
    if not trained:
        raise _Fault("all of its parameters are frozen; at least one must be trained")
    for key, each in trained.items():
        if not each.is_floating_point():
            raise _Fault(
                f"the parameter {key} is {each.dtype}; allowed are real floating-point numbers"
            )
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse:
            raise _Fault(
                f"the layer {key} has sparse gradients, which are not taken; leave out sparse"
            )


def _not_kept(model: nn.Module) -> None:
    """Refuse a state that a vector of float32 does not hold, or that no client may send."""
    for key, each in model.state_dict().items():
        if not isinstance(each, Tensor) or not each.numel():  # extra state may be anything
            continue
        if each.is_complex():
            raise _Fault(f"{key} is {_short(each)}, and clients send real numbers; {_KEPT_OUT}")
        if each.is_floating_point():
            if not bool(each.isfinite().all()):
                raise _Fault(f"{key} is not finite, and no such update is taken; {_KEPT_OUT}")
        elif max(abs(int(end)) for end in each.aminmax()) > _EXACT:
            raise _Fault(
                f"{key} has whole numbers above {_EXACT:,}, which float32 does not hold; "
                f"{_KEPT_OUT}"
            )


def _no_classifier(model: nn.Module, two: Tensor, classes: int, mode: str = "") -> None:
    """Refuse a module that, as it is, does not map two samples to logits."""
    shape, given = tuple(two.shape), two.clone()
    samples = "images" if len(shape) == 4 else "samples"
    try:
        with global_stream(torch.Generator()):
            output: Any = model(given)
    except Exception as error:
        where = place(error, *(type(each).forward for each in model.modules()))
        raise _Fault(
            f"fails on {samples} of shape {shape}{mode}{where} ({said(error, 120)})"
        ) from error
    if not isinstance(output, Tensor):
        answer = f"a {type(output).__name__}"
    elif output.shape != (2, classes) or not output.is_floating_point():
        answer = f"{_short(output)} of shape {tuple(output.shape)}"
    elif not torch.equal(given, two):
        raise _Fault(f"changes its {samples} in place, which others are asked, too; work on a copy")
    else:
        return
    raise _Fault(
        f"must map {samples} of shape {shape} to logits of shape {(2, classes)}, but returns "
        f"{answer}{mode}"
    )


def _grown(before: ParamSpec, after: ParamSpec) -> None:
    """Refuse a state whose tensors are others once the module has been used."""
    old, new = (
        {slot.name: slot.shape for slot in (*spec.parameters, *spec.buffers)}
        for spec in (before, after)
    )
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            raise _Fault(f"{key} comes, goes or changes its shape as it is used; {_KEPT_OUT}")


def _short(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
