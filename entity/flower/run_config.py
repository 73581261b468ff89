"""The run config of a Flower app: `flwr run APP --run-config 'fields="rounds=5 DPR=0.25"'`."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from entity.attacks import ATTACKS
from entity.config import schema
from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError, Count, Positive, Whole
from entity.setup import resolve


@dataclass(frozen=True)
class RunConfig:
    """The keys of `[tool.flwr.app.config]`, with underscores for hyphens."""

    fields: str = ""
    """Fields of the experiment to override, as `NAME=VALUE NAME=VALUE`."""
    timeout: Positive = 600.0
    """Seconds to wait for the replies of a round."""
    min_nodes: Whole = 0
    """A round begins once so many nodes are connected; 0 waits for `federation.round_size`."""
    min_survivors: Count = 2
    """With fewer sound replies the global model stays."""
    trust_sample_counts: bool = False
    """Believe the numbers of samples that nodes report."""
    state: str = ""
    """Folder on the server from which a restarted run goes on; empty for none."""
    secret: str = ""
    """File on the server that its draws depend on, too, made where there is none; empty for none:
    every node has the experiment's seed, and knows what a server without a secret draws."""
    metrics: str = ""
    """File on the server, NAME.prom, for the textfile collector of Prometheus' node_exporter; empty
    for none."""


def run_config(given: Mapping[str, Any]) -> RunConfig:
    """Read the run config that Flower passes on.

    Raises
    ------
    ConfigError
        For a key or a value that is not allowed.
    """
    return schema.load(
        RunConfig, {key.replace("-", "_"): given[key] for key in given}, "run-config"
    )


def experiment(path: Path, given: Mapping[str, Any]) -> ExperimentConfig:
    """Return the experiment of an app, with the overrides of its run config.

    Raises
    ------
    ConfigError
        If the file is no experiment, or one that separate nodes cannot run.

    Examples
    --------
    >>> from importlib.resources import files
    >>> path = Path(str(files("entity") / "configs" / "mnist5k" / "droplet.json"))
    >>> experiment(path, {"fields": "rounds=5 client.attack=null"}).federation.rounds
    5
    """
    fields: list[tuple[str, str | None]] = []
    text = run_config(given).fields
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"run-config.fields = {schema.show(text)}: {error}.") from error
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"run-config.fields: {schema.show(word)} is not NAME=VALUE.")
        fields.append((name, value))
    config = resolve.experiment(resolve.read(path, "experiment"), fields)
    attack = config.client.attack
    if attack is not None and attack.takes_place and ATTACKS[attack.type].colludes(attack.args):
        alone = [
            name for name, entry in ATTACKS.items() if not entry.colludes(entry.hyperparameters())
        ]
        raise ConfigError(
            f"client.attack.type = {attack.type}: its clients agree on what they send once all "
            f"have trained, which separate nodes cannot; allowed are {', '.join(alone)}, and those "
            "that scale, with a number as gamma."
        )
    return config
