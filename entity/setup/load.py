"""An experiment from the name or file of its configuration, for programs."""

import json
from pathlib import Path
from typing import Any

from entity.config.fields import ExperimentConfig
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
        `**{"client.lr": 0.1}`.

    Raises
    ------
    ConfigError
        If there is no such configuration, a field is unknown, or a value is not allowed.

    Examples
    --------
    >>> load("mnist5k/drop", DPR=0.25, rounds=3).federation.rounds
    3
    """
    overrides = [(name, json.dumps(value)) for name, value in fields.items()]
    path = find_config(str(config), Path())
    return resolve.experiment(resolve.read(path, "config"), overrides)
