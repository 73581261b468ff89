"""Data poisons: what is done to poisoned samples, one file each."""

from entity.dataset.poisons.a3fl import A3fl
from entity.dataset.poisons.blended import Blended
from entity.dataset.poisons.contract import AdaptivePoison, Memory, NoPoisonArgs, Poison
from entity.dataset.poisons.dba import Dba
from entity.dataset.poisons.edge_case import EdgeCase
from entity.dataset.poisons.iba import Iba
from entity.dataset.poisons.label_flip import LabelFlip
from entity.dataset.poisons.pixel import Pixel

__all__ = ["POISONS", "AdaptivePoison", "Memory", "NoPoisonArgs", "Pixel", "Poison"]

POISONS: dict[str, type[Poison]] = {
    "pixel": Pixel,
    "dba": Dba,
    "blended": Blended,
    "label_flip": LabelFlip,
    "edge_case": EdgeCase,
    "a3fl": A3fl,
    "iba": Iba,
}
