"""The fields of a configuration as options: `--DPR 0.25 --client.lr 0.1`."""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.config.shipped import file_or_shipped
from entity.setup import resolve

CONFIG_HELP = "JSON or YAML file, or a shipped configuration such as mnist5k/drop"


def configured(options: argparse.Namespace, rest: Sequence[str]) -> ExperimentConfig:
    """Return the experiment of `--config` with the fields that the command line overrides."""
    path = file_or_shipped(options.config, Path())
    return resolve.experiment(resolve.read(path), given(options, rest))


def given(options: argparse.Namespace, rest: Sequence[str]) -> list[tuple[str, str | None]]:
    """Return the fields that the command line overrides."""
    fields = overrides(rest)
    if options.data_root is not None:
        fields.append(("settings.datasets_path", options.data_root))
    if getattr(options, "trackers", None):
        fields.append(("settings.trackers", json.dumps(options.trackers)))
    return fields


def overrides(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Read `--name value`, `--name=value` and `--name` off the command line.

    Raises
    ------
    ConfigError
        For a word that belongs to no option.

    Examples
    --------
    >>> overrides(["--DPR", "0.25", "--K=-1", "--augment"])
    [('DPR', '0.25'), ('K', '-1'), ('augment', None)]
    """
    found: list[tuple[str, str | None]] = []
    waiting = False
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            found.append((name, value if equals else None))
            waiting = not equals
        elif waiting:
            found[-1] = (found[-1][0], word)
            waiting = False
        else:
            raise ConfigError(f'"{word}" belongs to no option; fields are given as --NAME VALUE.')
    return found
