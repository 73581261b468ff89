"""A user's own classifier, of a plugin or given as `module:function`: how it is built.

For square images the function is called as those of the registry are, with (channels, size,
classes); for other samples with the numbers of their shape and the classes, such as (features,
classes) or (length, features, classes). What it returns is tried out by `examination.py`.
"""

import importlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from entity.config.schema import ConfigError
from entity.returned import place, said

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
