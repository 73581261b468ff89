"""A user's own classifier, of a plugin or given as `module:function`: built and tried out.

For square images the function is called as those of the registry are, with (channels, size,
classes); for other samples with the numbers of their shape and the classes, such as (features,
classes) or (length, features, classes). A fault in it is reported in one sentence before anything
is trained.
"""

import importlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from entity.config.schema import ConfigError
from entity.returned import place, said
from entity.seeding import global_stream

Make = Callable[..., nn.Module]
"""(channels, size, classes) -> module that maps images to logits; see `arguments`."""


def arguments(shape: Sequence[int], classes: int) -> tuple[int, ...]:
    """Return what the function of a classifier is called with.

    Parameters
    ----------
    shape
        Of a sample.
    classes
        Number of logits.

    Examples
    --------
    >>> arguments((3, 32, 32), 10), arguments((3, 32, 16), 10), arguments((40,), 2)
    ((3, 32, 10), (3, 32, 16, 10), (40, 2))
    """
    square = len(shape) == 3 and shape[1] == shape[2]
    return (*(shape[:2] if square else shape), classes)


def imported(name: str) -> Make:
    """Return the function that `module:function` names; each call checks its result.

    Raises
    ------
    ConfigError
        If there is no such module or function; on a call, if the function raises or returns no
        module.

    Examples
    --------
    >>> imported("math:sqrt")(1, 28, 10)
    Traceback (most recent call last):
    entity.config.schema.ConfigError: model = "math:sqrt": the call with (channels, size, classes) \
= (1, 28, 10) failed (TypeError: math.sqrt() takes exactly one argument (3 given)).
    """
    module, _, function = name.partition(":")
    try:
        own: Any = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'model = "{name}": cannot be imported ({said(error, 120)}); Python looks in '
            "PYTHONPATH, and a file is named in plugins, with its models in a table MODELS."
        ) from error
    except Exception as error:  # importing runs the user's code
        raise ConfigError(f'model = "{name}": cannot be imported ({said(error, 120)}).') from error
    if not callable(own):
        raise ConfigError(f'model = "{name}": is no function of (channels, size, classes).')
    return checked(name, own)


def checked(name: str, own: Callable[..., Any]) -> Make:
    """Return a user's function; each call checks its result.

    Parameters
    ----------
    name
        The field `model`, for messages.
    own
        The function.
    """

    def make(*numbers: int) -> nn.Module:
        try:
            model = own(*numbers)
        except Exception as error:
            names = "(channels, size, classes)" if len(numbers) == 3 else "(*shape, classes)"
            raise ConfigError(
                f'model = "{name}": the call with {names} = {numbers} failed{place(error, own)} '
                f"({said(error, 120)})."
            ) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f'model = "{name}": must return a torch.nn.Module, not a {type(model).__name__}.'
            )
        for key, tensor in chain(model.named_parameters(), model.named_buffers()):
            if is_lazy(tensor):
                raise ConfigError(
                    f'model = "{name}": the size of {key} is not known before it is used, as of a '
                    "lazy layer; give its layer all sizes, such as nn.Linear(8, 2) for "
                    "nn.LazyLinear(2)."
                )
        return model

    return make


@torch.inference_mode()
def examine(name: str, model: nn.Module, two: torch.Tensor, classes: int) -> None:
    """Check that a model has parameters and maps two samples to logits (2, classes).

    Changes neither the model nor the global stream of random numbers.

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
        If it does not.
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise ConfigError(f'model = "{name}": has no parameters to train.')
    if untrainable := _untrainable(model):
        raise ConfigError(f'model = "{name}": {untrainable}.')
    shape, was_training = tuple(two.shape), model.training
    samples = "images" if len(shape) == 4 else "samples"
    try:
        with global_stream(torch.Generator()):
            output: Any = model.eval()(two.to(parameter.device))
    except Exception as error:
        where = place(error, *(type(each).forward for each in model.modules()))
        raise ConfigError(
            f'model = "{name}": fails on {samples} of shape {shape}{where} ({said(error, 120)}).'
        ) from error
    finally:
        model.train(was_training)
    if not isinstance(output, torch.Tensor):
        answer = f"a {type(output).__name__}"
    elif output.shape != (2, classes) or not output.is_floating_point():
        answer = f"{output.dtype} of shape {tuple(output.shape)}".removeprefix("torch.")
    else:
        return
    raise ConfigError(
        f'model = "{name}": must map {samples} of shape {shape} to logits of shape '
        f"{(2, classes)}, but returns {answer}."
    )


def _untrainable(model: nn.Module) -> str:
    """Say why local SGD cannot train a model; "" if nothing speaks against it."""
    trained = {key: each for key, each in model.named_parameters() if each.requires_grad}
    if not trained:
        return "all of its parameters are frozen; at least one must be trained"
    for key, each in trained.items():
        if not each.is_floating_point():
            return f"the parameter {key} is {each.dtype}; allowed are real floating-point numbers"
    for key, layer in model.named_modules():
        if isinstance(layer, nn.Embedding | nn.EmbeddingBag) and layer.sparse:
            return f"the layer {key} has sparse gradients, which are not taken; leave out sparse"
    return ""
