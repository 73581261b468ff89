"""A user's own classifier, given as `module:function`: imported, built and tried out.

The function is called as those of the registry are, with (channels, size, classes). A fault in it
is reported in one sentence before anything is trained.
"""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from entity.config.schema import ConfigError
from entity.seeding import global_stream

Make = Callable[[int, int, int], nn.Module]
"""(channels, size, classes) -> module that maps images to logits."""


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
    except Exception as error:  # importing runs the user's code
        raise ConfigError(f'model = "{name}": cannot be imported ({_one_line(error)}).') from error
    if not callable(own):
        raise ConfigError(f'model = "{name}": is no function of (channels, size, classes).')

    def make(channels: int, size: int, classes: int) -> nn.Module:
        try:
            model = own(channels, size, classes)
        except Exception as error:
            raise ConfigError(
                f'model = "{name}": the call with (channels, size, classes) = '
                f"{channels, size, classes} failed ({_one_line(error)})."
            ) from error
        if not isinstance(model, nn.Module):
            raise ConfigError(
                f'model = "{name}": must return a torch.nn.Module, not a {type(model).__name__}.'
            )
        return model

    return make


@torch.inference_mode()
def examine(name: str, model: nn.Module, channels: int, size: int, classes: int) -> None:
    """Check that a model has parameters and maps images (2, C, S, S) to logits (2, classes).

    Changes neither the model nor the global stream of random numbers.

    Parameters
    ----------
    name
        The field `model`, for messages.
    model
        The result of the user's function.
    channels, size, classes
        The arguments of that call.

    Raises
    ------
    ConfigError
        If it does not.
    """
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise ConfigError(f'model = "{name}": has no parameters to train.')
    images, was_training = (2, channels, size, size), model.training
    try:
        with global_stream(torch.Generator()):
            output: Any = model.eval()(torch.zeros(images, device=parameter.device))
    except Exception as error:
        raise ConfigError(
            f'model = "{name}": fails on images of shape {images} ({_one_line(error)}).'
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
        f'model = "{name}": must map images of shape {images} to logits of shape '
        f"{(2, classes)}, but returns {answer}."
    )


def _one_line(error: Exception, most: int = 120) -> str:
    text = f"{type(error).__name__}: " + " ".join(str(error).split())
    return text if len(text) <= most else text[: most - 3] + "..."
