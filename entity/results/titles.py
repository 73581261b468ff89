"""Names that papers use for methods: DROPlet, Multi-Krum, FLAME.

Tables and figures for readers have them; what programs read, and what is typed again, keeps the
names of the registries.
"""

import re
from collections.abc import Mapping
from dataclasses import replace

from entity.config.schema import ConfigError
from entity.results.tables import Table

TITLES: dict[str, str] = {
    "undefended": "Undefended",
    "droplet": "DROPlet",
    "drop": "DROP",
    "drop_plus": "DROP+",
    "median": "Median",
    "trimmed_mean": "Trimmed Mean",
    "rfa": "RFA",
    "krum": "Krum",
    "multikrum": "Multi-Krum",
    "bulyan": "Bulyan",
    "norm_clipping": "Norm Clipping",
    "weak_dp": "Weak DP",
    "centered_clipping": "Centered Clipping",
    "rlr": "RLR",
    "crfl": "CRFL",
    "foolsgold": "FoolsGold",
    "fltrust": "FLTrust",
    "flame": "FLAME",
    "flare": "FLARE",
    "deepsight": "DeepSight",
    "rflbat": "RFLBAT",
    "freqfed": "FreqFed",
    "multi_metrics": "Multi-Metrics",
    "alignins": "AlignIns",
    "dnc": "DnC",
    "signguard": "SignGuard",
    "fldetector": "FLDetector",
    "snowball": "Snowball",
    "backdoor_indicator": "BackdoorIndicator",
    "crowdguard": "CrowdGuard",
    "flip": "FLIP",
    "finetuning": "Fine-tuning",
    "random_aggregation": "Random Aggregation",
    "fedprox": "FedProx",
    "local_dp": "Local DP",
    "fedavgm": "FedAvgM",
    "fedadam": "FedAdam",
    "fedyogi": "FedYogi",
    "badnets": "BadNets",
    "neurotoxin": "Neurotoxin",
    "chameleon": "Chameleon",
    "model_replacement": "Model Replacement",
    "constrain_and_scale": "Constrain-and-Scale",
    "pgd": "PGD",
    "sign_flip": "Sign Flip",
    "alie": "ALIE",
    "min_max": "Min-Max",
    "ipm": "IPM",
    "fang": "Fang",
    "mimic": "Mimic",
    "three_dfed": "3DFed",
    "impersonation": "Impersonation",
    "in_sight": "In Sight",
    "bait": "Bait",
    "covered": "Covered",
    "disguised": "Disguised",
    "noisy": "Noisy",
    "two_faces": "Two Faces",
    "dba": "DBA",
    "a3fl": "A3FL",
    "iba": "IBA",
    "own_trigger": "Own Trigger",
}
"""Of defenses, rules of clients and servers, attacks, and data poisons that a paper has named."""

_OF_METHODS = ("defense", "attack", "poison", "type")
"""Last parts of the names of columns that hold methods."""


def titled(label: str, names: Mapping[str, str] | None = None) -> str:
    """Return a label with the methods in it by their published names.

    Parameters
    ----------
    label
        Words with commas or spaces between them; the name of a run, which may begin with a
        method's, stays as it is unless it is one.
    names
        Names that go before `TITLES`.

    Examples
    --------
    >>> titled("multikrum, badnets, DPR 0.25"), titled("drop-seed1")
    ('Multi-Krum, BadNets, DPR 0.25', 'drop-seed1')
    >>> titled("drop", {"drop": "Ours"})
    'Ours'
    """
    known = {**TITLES, **(names or {})}
    return re.sub(r"[^\s,;()]+", lambda word: known.get(word[0], word[0]), label)


def with_titles(table: Table, names: Mapping[str, str] | None = None) -> Table:
    """Return a table whose columns of methods have published names.

    Parameters
    ----------
    table
        Its columns are named as those of `drop results`.
    names
        Names that go before `TITLES`.
    """
    places = [
        place
        for place, column in enumerate(table.columns)
        if column.name.rsplit(".", 1)[-1] in _OF_METHODS
    ]
    rows = tuple(
        tuple(
            titled(cell, names) if place in places and isinstance(cell, str) else cell
            for place, cell in enumerate(row)
        )
        for row in table.rows
    )
    return replace(table, rows=rows)


def read_names(text: str) -> dict[str, str]:
    """Read names such as `drop=DROP (ours),flame=FLAME`.

    Raises
    ------
    ConfigError
        For a part that is no NAME=TITLE.

    Examples
    --------
    >>> read_names("drop=DROP (ours), flame=FLAME")
    {'drop': 'DROP (ours)', 'flame': 'FLAME'}
    """
    names: dict[str, str] = {}
    for part in text.split(","):
        name, given, title = (each.strip() for each in part.partition("="))
        if not (name and given and title):
            raise ConfigError(f"{text}: allowed is NAME=TITLE[,NAME=TITLE ...].")
        names[name] = title
    return names
