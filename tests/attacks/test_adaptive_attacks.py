"""A3FL and IBA inside a federation: learnt before the round, used by all, judged as they are."""

from pathlib import Path
from typing import Any

import pytest
import torch

from entity.experiment import run
from entity.record.directory import Record

A3FL = {
    **{"type": "badnets", "poison": "a3fl", "DPR": 1.0, "victim_class": 0, "target_class": 7},
    **{"a3fl_epochs": 3, "a3fl_unlearn_epochs": 1, "a3fl_step": 0.2},
}
IBA = {
    **{"type": "neurotoxin", "poison": "iba", "DPR": 1.0, "victim_class": 0, "target_class": 7},
    **{"iba_epochs": 2, "iba_local_asr": 0.0},
}


def federation(attack: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "client.attack": attack,
        "federation.number_of_malicious_clients": 2,
        "federation.round_size": 4,
        "federation.rounds": 4,
        **more,
    }


def numbers(rounds: list[dict[str, Any]]) -> list[tuple[float, float]]:
    return [(line["mta"], line["asr"]) for line in rounds]


@pytest.fixture(scope="module", params=[A3FL, IBA], ids=["a3fl", "iba"])
def attack(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


@pytest.mark.slow
def test_workers_poison_with_what_was_learnt_in_the_parent(attack, experiment):
    few = {"client.ADR": 0.03, "federation.rounds": 2}
    pool = {"settings.engine": "pool", "settings.workers": 1}
    inline = run(experiment(federation(attack, **few)))
    pooled = run(experiment(federation(attack, **few, **pool)))
    assert numbers(pooled.rounds) == numbers(inline.rounds)
    assert torch.equal(pooled.state.weights, inline.state.weights)


def test_a_run_that_goes_on_remembers_what_was_learnt(attack, experiment, tmp_path, monkeypatch):
    whole = run(experiment(federation(attack)))
    config = experiment(federation(attack))
    append = Record.append

    def stop_after_two(self: Record, line: dict[str, Any], artifacts: Any) -> None:
        append(self, line, artifacts)
        if line["round"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "append", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        run(config, Path(tmp_path / "run"))
    monkeypatch.undo()
    resumed = run(config, Path(tmp_path / "run"), resume=True)
    assert numbers(resumed.rounds) == numbers(whole.rounds)
    assert torch.equal(resumed.state.weights, whole.state.weights)


def test_another_trigger_is_learnt_than_the_first_and_the_attack_is_judged_by_it(experiment):
    learning = run(experiment(federation(A3FL)))
    still = run(experiment(federation(A3FL | {"a3fl_step": 1e-9})))
    assert numbers(learning.rounds) != numbers(still.rounds)


def test_outside_the_window_nothing_is_learnt(experiment):
    window = {"participation_strategy": "after_convergence", "poisoning_start_round": 4}
    late = run(experiment(federation(A3FL | window)))
    none = run(experiment(federation(A3FL | window | {"a3fl_epochs": 1})))
    assert numbers(late.rounds)[:3] == numbers(none.rounds)[:3]
    assert numbers(late.rounds)[3] != numbers(none.rounds)[3]
