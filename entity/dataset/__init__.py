"""Images, and how they are shared out among the clients.

A data set is one file that ends in one `Source`; `DATASETS` names them all.
"""

from typing import TYPE_CHECKING

from entity.dataset.arrays import Arrays, PythonData
from entity.dataset.augment import Augmentation, Draws
from entity.dataset.images import Images, Selection, channels_last, normalise, to_pixels
from entity.dataset.mnist5k import MNIST5K
from entity.dataset.partition import partition
from entity.dataset.reads import reads
from entity.dataset.registry import DATASETS, OWN_DATASETS, find, source_of
from entity.dataset.shares import Shares
from entity.dataset.source import Source, Split, differs, load
from entity.moved import names_of

__all__ = [
    "DATASETS",
    "MNIST5K",
    "OWN_DATASETS",
    "Arrays",
    "Augmentation",
    "Draws",
    "Images",
    "PythonData",
    "Selection",
    "Shares",
    "Source",
    "Split",
    "channels_last",
    "differs",
    "find",
    "load",
    "normalise",
    "partition",
    "reads",
    "source_of",
    "to_pixels",
]

if not TYPE_CHECKING:
    __getattr__ = names_of(__name__)
