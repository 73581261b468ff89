"""An experiment from the name or file of its configuration, for programs."""

import json
import os
from pathlib import Path
from typing import Any

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, show
from entity.config.shipped import find_config
from entity.setup import resolve


def load(config: str | Path, **fields: Any) -> ExperimentConfig:
    """Read a configuration and return its experiment.

    Parameters
    ----------
    config
        A file, or the name of a shipped configuration such as `mnist5k/drop`.
    fields
        Fields to change, by name as on the command line: `DPR=0.25`. A dotted name is given as
        `**{"client.lr": 0.1}`. Scalars of NumPy and PyTorch count as numbers, paths as texts.

    Raises
    ------
    ConfigError
        If there is no such configuration, a field is unknown, or a value is not allowed.

    Examples
    --------
    >>> load("mnist5k/drop", DPR=0.25, rounds=3).federation.rounds
    3
    """
    overrides = [(name, _text(name, value)) for name, value in fields.items()]
    path = find_config(str(config), Path())
    return resolve.experiment(resolve.read(path, "config"), overrides)


def _text(name: str, value: object) -> str:
    """Return a value as the command line would take it."""
    try:
        return json.dumps(value, default=_plain)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{name} = {show(value)}: allowed are numbers, texts, True, False, None, and lists of "
            "them."
        ) from error


def _plain(value: object) -> object:
    if isinstance(value, os.PathLike):
        return os.fspath(value)  # pyright: ignore[reportUnknownVariableType]
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError
