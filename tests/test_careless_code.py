"""Runs of code of one's own that leaves things on a model and draws from global numbers."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from entity.client import Broadcast
from entity.engine.local_training import LocalTrainer
from entity.experiment import run
from entity.layout import ModelState
from entity.seeding import Seeds
from entity.setup.assembly import recruit

CARELESS = {
    "plugins": [str(Path(__file__).parent / "fixtures" / "careless.py")],
    "model": "untidy",
    "client.attack.type": "freezing",
    "client.attack.poison": "drawing",
    "federation.round_size": 4,
}


def numbers(result):
    return [[line[name] for name in ("mta", "asr", "accepted")] for line in result.rounds]


@pytest.mark.parametrize("engine", ["inline", "vectorized"])
def test_the_same_seed_gives_the_same_run(engine, experiment):
    """Regression: what `craft`, `collude`, `choose` and `test_set` drew was the process's."""
    config = experiment({**CARELESS, "settings.engine": engine})
    first = run(config)
    torch.randn(7)
    again = run(config)
    assert torch.equal(first.state.weights, again.state.weights)
    assert numbers(first) == numbers(again)


@pytest.mark.slow
def test_engines_agree_to_the_bit(experiment):
    """Regression: the clients after a careless one in its process trained the head alone."""
    inline = run(experiment(CARELESS))
    pool = run(experiment({**CARELESS, "settings.engine": "pool", "settings.workers": 2}))
    assert torch.equal(inline.state.weights, pool.state.weights)
    assert numbers(inline) == numbers(pool)


def test_nobody_trains_a_module_that_somebody_froze(experiment):
    _, roster = recruit(experiment(CARELESS), Seeds(1))
    spec, trainer = roster.spec, LocalTrainer(roster)
    (attacker,) = roster.malicious
    start = spec.flatten(roster.new_model())
    for client, moves in ((attacker, False), ((attacker + 1) % 4, True)):
        out = ModelState(start.weights.clone(), start.buffers.clone())
        trainer.train(Broadcast(1, start), client, out, {})
        moved = spec.parameters[0].of(out.weights - start.weights)
        assert (float(moved.std()) > 2e-3) == moves  # an attacker's is noise


def test_a_state_that_is_no_tensor_is_no_part_of_the_file(experiment, tmp_path):
    """Regression: the end of the run was lost, with a traceback."""
    result = run(experiment(CARELESS), tmp_path)
    assert result.summary["state"] == "finished"
    kept = load_file(tmp_path / "model.safetensors")
    assert set(kept) == {"body.weight", "body.bias", "head.weight", "head.bias"}
    follower = experiment({**CARELESS, "initial": str(tmp_path), "federation.rounds": 1})
    assert run(follower).summary["state"] == "finished"


def test_nothing_is_judged_on_an_empty_test_set(experiment):
    """Regression: a model that cannot take an empty batch ended the run."""
    result = run(experiment({**CARELESS, "client.attack.poison": "untested"}))
    assert all(line["asr"] is None or math.isnan(line["asr"]) for line in result.rounds)
