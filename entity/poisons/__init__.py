"""Data poisons: how samples are poisoned. One paper a file."""

from entity.client.poison import Poison
from entity.config.field_help import show_fields
from entity.poisons.a3fl import A3fl
from entity.poisons.blended import Blended
from entity.poisons.dba import Dba
from entity.poisons.edge_case import EdgeCase
from entity.poisons.iba import Iba
from entity.poisons.label_flip import LabelFlip
from entity.poisons.own_trigger import OwnTrigger
from entity.poisons.pixel import Pixel

__all__ = ["POISONS"]

POISONS: dict[str, type[Poison]] = {
    "pixel": Pixel,
    "dba": Dba,
    "blended": Blended,
    "label_flip": LabelFlip,
    "edge_case": EdgeCase,
    "a3fl": A3fl,
    "iba": Iba,
    "own_trigger": OwnTrigger,
}

for _poison in POISONS.values():
    show_fields(_poison.hyperparameters)
