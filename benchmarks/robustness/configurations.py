"""Random configurations: each is an experiment that survives JSON, or a `ConfigError`."""

import json
import os
import time
import traceback
from collections import Counter
from random import Random

from entity.config.fields import ExperimentConfig
from entity.config.schema import ConfigError
from entity.reading import parse_json
from entity.setup import resolve
from robustness.random_tables import Overrides, Tables, harm, overrides, plausible
from robustness.tally import ENOUGH, Case, Tally

LEAST = 0.25
"""Share of the cases that must be accepted, and share that must be refused: a resolver that refuses
everything passes no less than one that accepts everything."""

SECONDS = 20.0
"""Longest time that one case may take."""


class Configurations:
    """The figure."""

    in_process = True

    def case(self, seed: int) -> Case:
        """Resolve one random configuration."""
        os.environ.pop("DROP_DATA", None)
        tables, given = draw(seed)
        began = time.monotonic()
        try:
            outcome, failure = settle(tables, given)
        except Exception as error:
            outcome, failure = "crashed", f"{_where(error)}: {type(error).__name__}: {error}"
        if not failure and time.monotonic() - began > SECONDS:
            failure = f"took {time.monotonic() - began:.0f} s"
        return Case(Counter([outcome]), ascii(failure)[1:-1][:400])

    def shortfall(self, tally: Tally) -> str:
        """Say that too few were accepted, or refused."""
        if tally.cases < ENOUGH:
            return ""
        for name in ("accepted", "refused"):
            if tally.share(name) < LEAST:
                return f"{tally.share(name):.0%} are {name}; at least {LEAST:.0%} should be"
        return ""


def draw(seed: int) -> tuple[Tables, Overrides]:
    """Return the tables and overrides of a seed."""
    rng = Random(f"configurations {seed}")
    tables, fields = plausible(rng)
    for _ in range(rng.choice([0, 0, 0, 1, 2])):
        harm(rng, tables)
    return tables, overrides(rng, fields, sound=rng.random() < 0.7)


def settle(tables: Tables, given: Overrides) -> tuple[str, str]:
    """Return what became of a configuration, and what is wrong with that."""
    try:
        config = resolve.experiment(tables, given)
    except ConfigError as refusal:
        text = str(refusal)
        return "refused", "" if text.strip() and text.isprintable() else f"says {text!r}"
    return "accepted", not_the_same(config)


def not_the_same(config: ExperimentConfig) -> str:
    """Return how an experiment differs from the one that its JSON describes."""
    text = json.dumps(resolve.to_json(config), allow_nan=False)
    again = resolve.experiment(parse_json(text))
    if again != config:
        return "another experiment comes back from its JSON"
    known_as = resolve.identity(config)
    if not known_as == resolve.identity(again) == resolve.fingerprint(parse_json(text)):
        return "another identity comes back from its JSON"
    return ""


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{os.path.basename(last.filename)}:{last.lineno}"
