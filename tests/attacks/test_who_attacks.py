"""Who counts as an attacker, and what the others of the malicious clients are: benign ones."""

import math
from dataclasses import replace

import pytest
import torch

from entity.dataset import Images
from entity.experiment import run
from entity.poisons.pixel import Pixel
from entity.seeding import Seeds
from entity.setup.assembly import open_judge, recruit

FEDERATION = {
    "federation.number_of_malicious_clients": 2,
    "federation.round_size": 4,
    "federation.rounds": 2,
}
HOPELESS = {  # a generator that never becomes good enough to poison with
    **{"poison": "iba", "DPR": 1.0, "victim_class": 0, "target_class": 7},
    **{"iba_epochs": 1, "iba_lr": 1e-9, "iba_local_asr": 1.0},
}
READY = {"iba_local_asr": 0.0}
FLIP = {
    "type": "flip",
    "defense_args": {
        **{"size_min": 1, "trigger_steps": [2, 2, 2], "attack_succ_threshold": 0.0},
        **{"trigger_size_check_threshold": 1.0, "init_mask_chunk": False, "pairs_per_batch": 1},
    },
}
REPLACEMENT = {"type": "model_replacement", "gamma": 5.0}


def same(one, other):
    return torch.equal(one.state.weights, other.state.weights)


@pytest.mark.parametrize(
    "attack", [{"type": "badnets"}, {"type": "neurotoxin"}, REPLACEMENT], ids=lambda a: a["type"]
)
def test_who_does_not_poison_yet_is_no_attacker(experiment, attack):
    waiting = run(experiment(FEDERATION | {"client.attack": HOPELESS | attack}))
    assert [line["n_malicious"] for line in waiting.rounds] == [0, 0]
    assert math.isnan(waiting.summary["detection"]["tpr"])
    assert same(waiting, run(experiment(FEDERATION | {"client.attack": None})))


def test_a_run_in_which_nobody_was_ready_to_poison_says_so(experiment, caplog):
    run(experiment({**FEDERATION, "client.attack": {"type": "badnets", **HOPELESS}}))
    assert "= iba: was good enough in none of 2 rounds: nobody poisoned" in caplog.text
    caplog.clear()
    run(experiment({**FEDERATION, "client.attack": {"type": "badnets", **HOPELESS} | READY}))
    assert "nobody poisoned" not in caplog.text


def test_a_federation_of_baits_alone_is_warned_of(experiment, caplog):
    attack = {"type": "bait", "DPR": 1.0, "victim_class": 0, "target_class": 7, "baits": 2}
    recruit(experiment({**FEDERATION, "client.attack": attack}), Seeds(1))
    assert "client.attack.baits = 2: all malicious clients (2) are baits" in caplog.text
    caplog.clear()
    recruit(experiment({**FEDERATION, "client.attack": {**attack, "baits": 1}}), Seeds(1))
    assert "are baits" not in caplog.text


def test_an_attack_after_the_last_round_is_said_to_be_none(experiment, caplog):
    late = {"participation_strategy": "after_convergence", "poisoning_start_round": 50}
    late = {f"client.attack.{name}": value for name, value in late.items()}
    recruit(experiment({**late, "federation.rounds": 50}), Seeds(1))
    assert not caplog.text
    recruit(experiment({**late, "federation.rounds": 49}), Seeds(1))
    assert "start_round = 50: none of the 49 rounds is poisoned: there is no attack" in caplog.text


@pytest.mark.parametrize(
    ("test_set", "said"),
    [
        (lambda self, test: self.relabelled(self.trigger.stamp(test.x)), "returned all "),
        (lambda self, test: stamped(self, self.eligible(test)), "have their own label"),
        (lambda self, test: self.relabelled(self.eligible(test).x), "leaves "),
        (lambda self, test: Pixel.test_set(self, test), ""),
    ],
)
def test_slips_of_an_own_test_set_are_warned_of(experiment, caplog, test_set, said):
    """`eligible` forgotten, labels forgotten, the stamp forgotten."""
    config = experiment({"client.attack.victim_class": 0})
    split, roster = recruit(config, Seeds(1))
    own = type("Mine", (Pixel,), {"test_set": test_set})
    poison = own(config.client.attack, None, 1, split.test.x.shape[-1])
    open_judge(config, split, replace(roster, poison=poison))
    assert said in caplog.text
    assert bool(caplog.text) == bool(said)


def stamped(poison, images):
    return Images(poison.trigger.stamp(images.x), images.y)


def test_a_trigger_that_changes_no_image_is_warned_of(experiment, caplog):
    """White pixels on white paper; a flip of labels has no trigger anyway."""
    for poison, said in (("pixel", True), ("label_flip", False)):
        config = experiment({"client.attack.poison": poison})
        split, roster = recruit(config, Seeds(1))
        white = replace(split, test=Images(torch.full_like(split.test.x, 255), split.test.y))
        open_judge(config, split, roster)
        assert not caplog.text
        open_judge(config, white, roster)
        assert ("= pixel: its trigger leaves" in caplog.text) == said
        caplog.clear()


def test_who_begins_to_poison_is_one_from_that_round_on(experiment):
    begun = HOPELESS | {"type": "badnets", "iba_local_asr": 0.0}
    found = run(experiment(FEDERATION | {"client.attack": begun}))
    assert [line["n_malicious"] for line in found.rounds] == [2, 2]


def test_without_a_sample_to_poison_nothing_is_boosted(experiment):
    idle = REPLACEMENT | {"DPR": 0.0, "victim_class": 0, "target_class": 7}
    found = run(experiment(FEDERATION | {"client.attack": idle}))
    assert [line["n_malicious"] for line in found.rounds] == [0, 0]
    assert same(found, run(experiment(FEDERATION | {"client.attack": None})))


@pytest.mark.parametrize("engine", ["inline", "vectorized"])
def test_outside_its_window_an_attacker_hardens_as_everybody_does(experiment, engine):
    later = {
        **{"type": "badnets", "DPR": 1.0, "victim_class": 0, "target_class": 7},
        **{"participation_strategy": "after_convergence", "poisoning_start_round": 3},
    }
    flip = FEDERATION | {"server.defense": FLIP, "settings.engine": engine, "client.ADR": 0.05}
    waiting = run(experiment(flip | {"client.attack": later}))
    assert same(waiting, run(experiment(flip | {"client.attack": None})))
    plain = run(experiment(flip | {"client.attack": None, "server.defense": None}))
    assert not same(waiting, plain)
