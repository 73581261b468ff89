"""Defenses: one file each, all with the contract of `contract.py`."""

from typing import Any

from entity.server.bulyan import Bulyan
from entity.server.contract import Averaging, CleanData, Needs, Resources, Server, Setting
from entity.server.crfl import Crfl
from entity.server.deepsight import DeepSight
from entity.server.drop import Drop, DropArgs
from entity.server.droplet import Droplet, DropletArgs
from entity.server.finetuning import Finetuning
from entity.server.flame import Flame
from entity.server.flare import Flare
from entity.server.flip import Flip
from entity.server.fltrust import FLTrust
from entity.server.foolsgold import FoolsGold
from entity.server.freqfed import FreqFed
from entity.server.gate import admit
from entity.server.geometric_median import GeometricMedian
from entity.server.krum import Krum, MultiKrum
from entity.server.median import Median
from entity.server.multi_metrics import MultiMetrics
from entity.server.norm_clipping import NormClipping
from entity.server.random_aggregation import RandomAggregation
from entity.server.rflbat import Rflbat
from entity.server.rlr import RobustLearningRate
from entity.server.streaming import Stream
from entity.server.trimmed_mean import TrimmedMean
from entity.server.undefended import Undefended, UndefendedArgs

__all__ = [
    "ALIASES",
    "SERVERS",
    "Averaging",
    "CleanData",
    "Drop",
    "DropArgs",
    "Droplet",
    "DropletArgs",
    "Needs",
    "Resources",
    "Server",
    "Setting",
    "Stream",
    "Undefended",
    "UndefendedArgs",
    "admit",
]

SERVERS: dict[str, type[Server[Any]]] = {
    "undefended": Undefended,
    "droplet": Droplet,
    "drop": Drop,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "rfa": GeometricMedian,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "norm_clipping": NormClipping,
    "rlr": RobustLearningRate,
    "crfl": Crfl,
    "foolsgold": FoolsGold,
    "fltrust": FLTrust,
    "flame": Flame,
    "flare": Flare,
    "deepsight": DeepSight,
    "rflbat": Rflbat,
    "freqfed": FreqFed,
    "multi_metrics": MultiMetrics,
    "flip": Flip,
    "finetuning": Finetuning,
    "random_aggregation": RandomAggregation,
}

ALIASES = {"maze": "drop", "none": "undefended"}
"""Names that configurations written for the original code use."""
