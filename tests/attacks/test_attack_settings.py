"""What holds for the settings of every attack and data poison, whatever it does."""

import pytest

from entity.attacks.alie import Alie
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
from entity.config import schema
from entity.config.fields import AttackConfig
from entity.config.schema import ConfigError
from entity.poisons.blended import Blended
from entity.poisons.dba import Dba
from entity.poisons.edge_case import EdgeCase
from entity.poisons.label_flip import LabelFlip
from entity.poisons.own_trigger import OwnTrigger

ATTACKS = [
    Alie,
    Bait,
    Chameleon,
    ConstrainAndScale,
    Covered,
    Disguised,
    Fang,
    Impersonation,
    InSight,
    Ipm,
    Mimic,
    MinMax,
    ModelReplacement,
    Neurotoxin,
    Noisy,
    Pgd,
    SignFlip,
    ThreeDFed,
    TwoFaces,
]
POISONS = [Blended, Dba, EdgeCase, LabelFlip, OwnTrigger]


@pytest.mark.parametrize("entry", [*ATTACKS, *POISONS])
def test_every_setting_is_documented_and_none_shadows_a_field_of_all_attacks(entry):
    names = set(schema.hints(entry.hyperparameters))
    assert names == set(schema.docs(entry.hyperparameters))
    assert not names & set(schema.hints(AttackConfig))
    assert entry.summary
    assert entry.paper
    assert "\n" not in entry.summary


def test_an_attack_and_a_data_poison_never_share_a_setting():
    ours = {name for attack in ATTACKS for name in schema.hints(attack.hyperparameters)}
    theirs = {name for poison in POISONS for name in schema.hints(poison.hyperparameters)}
    assert not ours & theirs


@pytest.mark.parametrize("entry", ATTACKS)
def test_defaults_survive_being_written_and_read(entry):
    defaults = schema.load(entry.hyperparameters, {})
    assert schema.load(entry.hyperparameters, schema.dump(defaults)) == defaults


def test_the_original_s_fields_of_neurotoxin_and_chameleon_load():
    assert (
        schema.load(Neurotoxin.hyperparameters, {"neurotoxin_top_k": 0.1}).neurotoxin_top_k == 0.1
    )
    original = {
        "poisoned_projection_norm": 5,
        "poisoned_is_projection_grad": False,
        "poisoned_supcon_lr": 0.015,
        "poisoned_supcon_momentum": 0.9,
        "poisoned_supcon_weight_decay": 0.0005,
        "malicious_milestones": [2, 4, 6, 8],
        "malicious_lr_gamma": 0.3,
        "fac_scale_weight": 2,
    }
    args = schema.load(Chameleon.hyperparameters, original)
    assert args.malicious_milestones == (2, 4, 6, 8)
    assert args.fac_scale_weight == 2.0


@pytest.mark.parametrize("gamma", ["replace", 12, 0.5])
def test_gamma_is_a_number_or_the_word(gamma):
    assert schema.load(ModelReplacement.hyperparameters, {"gamma": gamma}).gamma == gamma
    for wrong in (0, "repalce"):
        with pytest.raises(ConfigError, match="gamma"):
            schema.load(ModelReplacement.hyperparameters, {"gamma": wrong})


def test_the_edge_case_path_must_be_given():
    with pytest.raises(ConfigError, match=r"client\.attack\.edge_case_path is missing"):
        schema.load(EdgeCase.hyperparameters, {}, "client.attack")
