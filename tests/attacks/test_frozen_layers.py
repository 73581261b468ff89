"""Attacks on models of which a part is not trained, as of a pre-trained encoder."""

import pytest
import torch
from torch import nn

from entity.attacks import ATTACKS
from entity.attacks.chameleon import Chameleon, ChameleonArgs
from entity.client.indicators import quiet_layer
from entity.config.schema import ConfigError
from entity.layout import ParamSpec
from entity.models import Classifier

CLASSES = 3


def partly_frozen() -> Classifier:
    """Two convolutions, of which the first stays, and a head."""
    torch.manual_seed(0)
    features = nn.Sequential(
        nn.Conv2d(1, 4, 3).requires_grad_(False),
        *(nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()),
    )
    return Classifier(features, nn.Linear(16, CLASSES))


@pytest.mark.parametrize("name", sorted({*ATTACKS} - {"three_dfed"}))  # its training is joint
def test_what_is_frozen_stays_and_the_rest_is_attacked(name, make_bench):
    attack = ATTACKS[name]
    quick = {"poisoned_supcon_epochs": 1, "poisoned_head_epochs": 1} if name == "chameleon" else {}
    bench = make_bench(attack, attack.hyperparameters(**quick), model=partly_frozen())
    bench.fit()
    for slot in bench.spec.parameters:
        moved = bool(slot.of(bench.delta).any())
        assert moved != slot.frozen, slot.name


def test_indicators_go_to_a_layer_that_is_trained():
    model = partly_frozen()
    assert quiet_layer(ParamSpec.of(model), "head").name == "features.2.weight"
    model.features[2].requires_grad_(False)
    assert quiet_layer(ParamSpec.of(model), "head").name == "head.weight"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), "nothing is trained before"),
        (Classifier(nn.Flatten().requires_grad_(False), nn.Linear(64, 3)), "nothing is trained"),
        (nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()), "has no linear layer to be its head"),
    ],
)
def test_chameleon_refuses_a_model_without_an_encoder(model, said):
    with pytest.raises(ConfigError, match=f"client.attack.type = chameleon: .*{said}"):
        Chameleon.check(model)
    Chameleon.check(partly_frozen())


def test_chameleon_sees_the_features_of_a_compiled_model(make_bench, monkeypatch):
    """Dynamo does not look whether a hook has come since: features are taken uncompiled."""
    stances = []
    real = torch.compiler.set_stance

    def watched(stance):
        stances.append(stance)
        return real(stance)

    monkeypatch.setattr(torch.compiler, "set_stance", watched)
    quick = ChameleonArgs(poisoned_supcon_epochs=1, poisoned_head_epochs=1)
    make_bench(Chameleon, quick).fit()
    assert set(stances) == {"force_eager"}
