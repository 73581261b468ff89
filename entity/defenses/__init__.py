"""Defenses: how a server reduces a round's updates to the next global model. One paper a file."""

from typing import Any

from entity.config.field_help import show_fields
from entity.defenses.alignins import AlignIns
from entity.defenses.backdoor_indicator import BackdoorIndicator
from entity.defenses.bulyan import Bulyan
from entity.defenses.centered_clipping import CenteredClipping
from entity.defenses.crfl import Crfl
from entity.defenses.crowdguard import CrowdGuard
from entity.defenses.deepsight import DeepSight
from entity.defenses.dnc import Dnc
from entity.defenses.drop import Drop, DropArgs
from entity.defenses.drop_plus import DropPlus
from entity.defenses.droplet import Droplet, DropletArgs
from entity.defenses.finetuning import Finetuning
from entity.defenses.flame import Flame
from entity.defenses.flare import Flare
from entity.defenses.fldetector import FLDetector
from entity.defenses.flip import Flip
from entity.defenses.fltrust import FLTrust
from entity.defenses.foolsgold import FoolsGold
from entity.defenses.freqfed import FreqFed
from entity.defenses.krum import Krum, MultiKrum
from entity.defenses.median import Median
from entity.defenses.multi_metrics import MultiMetrics
from entity.defenses.norm_clipping import NormClipping
from entity.defenses.random_aggregation import RandomAggregation
from entity.defenses.rfa import GeometricMedian
from entity.defenses.rflbat import Rflbat
from entity.defenses.rlr import RobustLearningRate
from entity.defenses.signguard import SignGuard
from entity.defenses.snowball import Snowball
from entity.defenses.trimmed_mean import TrimmedMean
from entity.defenses.undefended import Undefended, UndefendedArgs
from entity.defenses.weak_dp import WeakDp
from entity.server import Server

__all__ = [
    "ALIASES",
    "DEFENSES",
    "Drop",
    "DropArgs",
    "Droplet",
    "DropletArgs",
    "Undefended",
    "UndefendedArgs",
]

DEFENSES: dict[str, type[Server[Any]]] = {
    "undefended": Undefended,
    "droplet": Droplet,
    "drop": Drop,
    "drop_plus": DropPlus,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "rfa": GeometricMedian,
    "krum": Krum,
    "multikrum": MultiKrum,
    "bulyan": Bulyan,
    "norm_clipping": NormClipping,
    "weak_dp": WeakDp,
    "centered_clipping": CenteredClipping,
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
    "alignins": AlignIns,
    "dnc": Dnc,
    "signguard": SignGuard,
    "fldetector": FLDetector,
    "snowball": Snowball,
    "backdoor_indicator": BackdoorIndicator,
    "crowdguard": CrowdGuard,
    "flip": Flip,
    "finetuning": Finetuning,
    "random_aggregation": RandomAggregation,
}

for _defense in DEFENSES.values():
    show_fields(_defense.hyperparameters)

SERVERS = DEFENSES
"""The registry's name in earlier versions."""

ALIASES = {"maze": "drop", "none": "undefended"}
"""Names that configurations written for the original code use."""
