"""An experiment from the name or file of its configuration, for programs."""

import json
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, show
from entity.config.shipped import find_config
from entity.setup import resolve
from entity.setup.field_list import longest_name, same_field
from entity.setup.overrides import as_text
from entity.setup.read import extended


def load(
    config: str | Path | Mapping[str, Any] | ExperimentConfig, **fields: Any
) -> ExperimentConfig:
    """Read a configuration and return its experiment.

    Parameters
    ----------
    config
        A file, the name of a shipped configuration such as `mnist5k/drop`, nested tables as a
        file would hold them, or an experiment to change.
    fields
        Fields to change, by name as on the command line: `DPR=0.25, defense="flame"`. A dotted
        name is given as `**{"client.lr": 0.1}`. Scalars of NumPy and PyTorch count as numbers,
        paths as texts.

    Raises
    ------
    ConfigError
        If there is no such configuration, a field is unknown, or a value is not allowed.

    Examples
    --------
    >>> load("mnist5k/drop", DPR=0.25, rounds=3).federation.rounds
    3
    """
    if isinstance(config, ExperimentConfig) and not fields:
        return config
    return resolve.experiment(_tables(config), overrides(fields))


def overrides(fields: Mapping[str, Any]) -> list[tuple[str, str | None]]:
    """Return fields of a program as `resolve.experiment` takes them.

    A text is one, and no JSON: "7" is not the number.

    Raises
    ------
    ConfigError
        If a value is none that a field can have, or two names mean one field.
    """
    for one, other in combinations(fields, 2):
        if same_field(one, other):
            raise ConfigError(
                f"{one} and {other}: both set {longest_name(one, other)}; give one of them."
            )
    return [(name, _text(name, value)) for name, value in fields.items()]


def _text(name: str, value: object) -> str:
    is_word = isinstance(value, str) and name != resolve.PLUGINS
    return json.dumps(value, ensure_ascii=False) if is_word else as_text(name, value)


def _tables(config: object) -> Mapping[str, Any]:
    if isinstance(config, ExperimentConfig):
        return resolve.to_json(config)
    if isinstance(config, Mapping):
        return extended(config, Path("config"), "config")
    if isinstance(config, str | Path):
        return resolve.read(find_config(str(config), Path()), "config")
    raise ConfigError(
        f"config = {show(config)}: allowed is a file, the name of a shipped configuration, tables "
        "of fields, or an experiment."
    )
