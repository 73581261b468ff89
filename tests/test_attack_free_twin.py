"""A run whose attackers never poison: the attack-free run, judged by the trigger of its twin."""

import json

import pytest
import torch

from entity.config.schema import ConfigError
from entity.experiment import run
from entity.results.store import collect, read_row
from entity.setup import resolve
from entity.setup.resolve import default_name

NEVER = {"client.attack.participation_strategy": "never"}


@pytest.mark.parametrize(
    "changes",
    [
        {"federation.rounds": 2},
        {"client.attack.type": "model_replacement"},
        {"client.attack.non_iid_equal_distribution": True, "client.IID": False},
        {"client.attack.poison": "dba", "federation.number_of_malicious_clients": 3},
        {"client.attack.poison": "a3fl"},
    ],
)
def test_weights_and_accuracy_are_those_of_the_run_without_an_attack(experiment, changes):
    clean = run(experiment({"client.attack": None, "client.IID": changes.get("client.IID", True)}))
    twin = run(experiment({**changes, **NEVER}))
    assert torch.equal(twin.state.weights, clean.state.weights)
    assert [line["mta"] for line in twin.rounds] == [line["mta"] for line in clean.rounds]
    assert all(line["n_malicious"] == 0 for line in twin.rounds)


def test_the_trigger_is_judged_where_nobody_poisons(experiment):
    twin = run(experiment(NEVER))
    assert all(0 <= line["asr"] <= 1 for line in twin.rounds)
    clean = run(experiment({"client.attack": None}))
    assert all(line["asr"] is None for line in clean.rounds)


def test_it_is_called_a_run_without_an_attack_everywhere(experiment, tmp_path):
    config = experiment(NEVER)
    assert default_name(config) == "mnist5k-undefended-no-attack-seed1"
    result = run(config, tmp_path / "run")
    assert result.summary["attack"] is None
    assert result.summary["detection"]["tpr"] is None or result.summary["detection"]["tpr"] != 0
    assert read_row(tmp_path / "run").facts["attack"] == "none"
    assert [found.facts["attack"] for found in collect([tmp_path])] == ["none"]
    # Without its summary, too.
    (tmp_path / "run/summary.json").unlink()
    assert read_row(tmp_path / "run").facts["attack"] == "none"
    assert json.loads((tmp_path / "run/config.json").read_text())["client"]["attack"]


def test_rates_of_an_attack_that_never_takes_place_are_refused_where_given(tables):
    config = tables(NEVER)
    for field, value in (("DPR", "0.5"), ("batchwise_poison", "true")):
        with pytest.raises(ConfigError, match="participation_strategy = consistent or after_conv"):
            resolve.experiment(config, [(field, value)])
    resolve.experiment(config, [("trigger_position", "top_right"), ("victim_class", "3")])
