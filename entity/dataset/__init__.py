"""Images, how they are shared out among the clients, and how they are poisoned.

A data set is one file that ends in one `Source`; `DATASETS` names them all.
"""

from entity.dataset.augment import Augmentation
from entity.dataset.backdoorable import (
    Backdoorable,
    BackdoorableCIFAR10,
    BackdoorableCINIC10,
    BackdoorableEMNIST,
    BackdoorableFashionMNIST,
    BackdoorableGTSRB,
)
from entity.dataset.images import Images, Selection, normalise, to_pixels
from entity.dataset.mnist5k import MNIST5K
from entity.dataset.partition import Shares, partition
from entity.dataset.poisoning import Holding, attack_test_set, choose, eligible, pool_evenly
from entity.dataset.poisons import POISONS, AdaptivePoison, Memory, Poison
from entity.dataset.registry import DATASETS, find, source_of
from entity.dataset.source import Source, Split, differs, load
from entity.dataset.triggers import Trigger, pixel_trigger

__all__ = [
    "DATASETS",
    "MNIST5K",
    "POISONS",
    "AdaptivePoison",
    "Augmentation",
    "Backdoorable",
    "BackdoorableCIFAR10",
    "BackdoorableCINIC10",
    "BackdoorableEMNIST",
    "BackdoorableFashionMNIST",
    "BackdoorableGTSRB",
    "Holding",
    "Images",
    "Memory",
    "Poison",
    "Selection",
    "Shares",
    "Source",
    "Split",
    "Trigger",
    "attack_test_set",
    "choose",
    "differs",
    "eligible",
    "find",
    "load",
    "normalise",
    "partition",
    "pixel_trigger",
    "pool_evenly",
    "source_of",
    "to_pixels",
]
