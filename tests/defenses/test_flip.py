import pytest
import torch

from entity.config import schema
from entity.config.schema import ConfigError
from entity.defenses.flip import Flip, FlipArgs
from entity.server.contract import Setting

SETTING = Setting(round_size=10, clean_samples=0, image=(1, 28))


def test_the_aggregate_is_the_mean_of_all_models(make_updates, make_resources):
    updates = make_updates([(3, 0), (0, 6), (0, 0)], ids=[7, 3, 5])
    answer = Flip(FlipArgs(), make_resources(updates)).aggregate(updates)
    assert answer.weights.tolist() == (updates.global_weights + torch.tensor([1.0, 2.0])).tolist()
    assert [verdict.client for verdict in answer.verdicts] == [7, 3, 5]
    assert all(verdict.weight == pytest.approx(1 / 3) for verdict in answer.verdicts)


def test_nobody_is_filtered_as_multi_krum_would(make_updates, make_resources):
    """The FLIP server that the original's repository holds is a copy of Multi-Krum."""
    updates = make_updates([0.0, 0.0, 0.0, 0.0, 100.0])
    answer = Flip(FlipArgs(), make_resources(updates)).aggregate(updates)
    assert all(verdict.accepted for verdict in answer.verdicts)
    assert answer.weights.item() == pytest.approx(updates.global_weights.item() + 20)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_small_rounds_and_equal_updates_are_fine(make_updates, make_resources, n):
    updates = make_updates([[0.0, 0.0]] * n)
    answer = Flip(FlipArgs(), make_resources(updates)).aggregate(updates)
    assert torch.equal(answer.weights, updates.global_weights)


def test_the_server_is_granted_nothing():
    assert str(Flip.needs(FlipArgs())) == "images"


def test_the_settings_of_the_originals_configs_load():
    cifar10 = schema.load(FlipArgs, {"defense_start_round": 10})
    assert (cifar10.size_min, cifar10.trigger_steps) == (5, (600, 600, 200))
    emnist = {
        "size_min": 1,
        "defense_start_round": 3,
        "attack_succ_threshold": 0.9,
        "trigger_size_check_threshold": 0.125,
        "portion": 0.5,
        "trigger_steps": [500, 400],
        "init_mask_chunk": False,
    }
    loaded = schema.load(FlipArgs, emnist)
    assert loaded.trigger_steps == (500, 400)
    Flip.check(loaded, SETTING)


@pytest.mark.parametrize("steps", [(), (600,), (1, 2, 3, 4)])
def test_other_numbers_of_steps_are_refused_with_the_mend(steps):
    with pytest.raises(ConfigError, match=r"needs 2 or 3 numbers.*write \[600, 600, 200\]"):
        Flip.check(FlipArgs(trigger_steps=steps), SETTING)
