"""Attacks: how malicious clients train and what they send. One paper a file."""

from entity.attacks.alie import Alie
from entity.attacks.badnets import BadNets
from entity.attacks.bait import Bait
from entity.attacks.chameleon import Chameleon
from entity.attacks.constrain_and_scale import ConstrainAndScale
from entity.attacks.covered import Covered
from entity.attacks.disguised import Disguised
from entity.attacks.fang import Fang
from entity.attacks.impersonation import Impersonation
from entity.attacks.in_sight import InSight
from entity.attacks.ipm import Ipm
from entity.attacks.mimic import Mimic
from entity.attacks.min_max import MinMax
from entity.attacks.model_replacement import ModelReplacement
from entity.attacks.neurotoxin import Neurotoxin
from entity.attacks.noisy import Noisy
from entity.attacks.pgd import Pgd
from entity.attacks.sign_flip import SignFlip
from entity.attacks.three_dfed import ThreeDFed
from entity.attacks.two_faces import TwoFaces
from entity.client import Attacker
from entity.config.field_help import show_fields

__all__ = ["ATTACKS"]

ATTACKS: dict[str, type[Attacker]] = {
    "badnets": BadNets,
    "neurotoxin": Neurotoxin,
    "chameleon": Chameleon,
    "model_replacement": ModelReplacement,
    "constrain_and_scale": ConstrainAndScale,
    "pgd": Pgd,
    "sign_flip": SignFlip,
    "alie": Alie,
    "min_max": MinMax,
    "ipm": Ipm,
    "fang": Fang,
    "mimic": Mimic,
    "three_dfed": ThreeDFed,
    "impersonation": Impersonation,
    "in_sight": InSight,
    "bait": Bait,
    "covered": Covered,
    "disguised": Disguised,
    "noisy": Noisy,
    "two_faces": TwoFaces,
}

for _attack in ATTACKS.values():
    show_fields(_attack.hyperparameters)
