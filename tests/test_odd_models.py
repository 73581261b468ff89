"""Tied weights and non-persistent buffers in whole runs: engines, resuming, students, the file."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from entity.experiment import run
from entity.seeding import Seeds
from entity.setup.assembly import recruit
from entity.setup.resume import recorded

MODELS = ("odd_models:tied", "odd_models:scratch")

STUDENTS = {
    "type": "drop",
    "defense_args": {
        **{"K": 1, "distill_iters": 2, "gen_width": 4, "dis_width": 4, "batch_size": 8},
        **{"model_gen": "conv3_gen", "model_dis": "conv3_dis", "num_seed": 20},
        **{"clone_init_with_global": False, "random_weight_S": 0.5},
    },
}


@pytest.fixture(autouse=True)
def importable_by_workers(monkeypatch):
    """Let worker processes find `odd_models`."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "fixtures")


def kept_apart(result):
    """Return rounds without what differs between any two runs."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in result.rounds]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "defense",
    [
        None,
        STUDENTS,
        {"type": "foolsgold", "defense_args": {"features": "head"}},
        {"type": "deepsight", "defense_args": {"num_samples": 20}},
    ],
    ids=["undefended", "students of DROP", "FoolsGold by the head", "DeepSight"],
)
def test_a_run_is_done_and_its_model_is_that_of_its_state_dict(
    model, defense, experiment, tmp_path
):
    changes = {"model": model, "server.defense": defense, "federation.round_size": 4}
    result = run(experiment(changes), tmp_path)
    assert all(vector.isfinite().all() for vector in result.state)
    _, roster = recruit(result.config, Seeds(1))
    loaded = roster.new_model()
    loaded.load_state_dict(load_file(tmp_path / "model.safetensors"))
    for ours, theirs in zip(roster.spec.flatten(loaded), result.state, strict=True):
        assert torch.equal(ours, theirs)
    if model == "odd_models:tied":
        assert loaded.head.weight is loaded.embedding.weight
        file = load_file(tmp_path / "model.safetensors")
        assert torch.equal(file["head.weight"], file["embedding.weight"])
    assert not {"features.2.calls", "features.2.mask"} & set(
        load_file(tmp_path / "model.safetensors")
    )


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_nothing_of_one_client_is_left_for_the_next_on_any_engine(model, experiment):
    changes = {"model": model, "federation.round_size": 4}
    inline = run(experiment(changes))
    pool = run(experiment({**changes, "settings.engine": "pool", "settings.workers": 2}))
    for one, other in zip(inline.state, pool.state, strict=True):
        assert torch.equal(one, other)
    assert kept_apart(inline) == kept_apart(pool)


@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_was_stopped_ends_as_one_that_never_was(model, experiment, tmp_path):
    changes = {"model": model, "server.defense": STUDENTS, "federation.round_size": 4}
    whole = run(experiment({**changes, "federation.rounds": 3}), tmp_path / "whole")

    class Stop(Exception):
        pass

    def stop(line):
        if line["round"] == 2:
            raise Stop

    folder = tmp_path / "stopped"
    with pytest.raises(Stop):
        run(experiment({**changes, "federation.rounds": 3}), folder, on_round=stop)
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    resumed = run(recorded(copy), copy, resume=True)
    for one, other in zip(whole.state, resumed.state, strict=True):
        assert torch.equal(one, other)
    assert kept_apart(whole) == kept_apart(resumed)


def test_tied_weights_are_trained_together_when_clients_are_stacked(experiment):
    changes = {"model": "odd_models:tied_without_norm", "federation.rounds": 1}
    plain = run(experiment(changes))
    stacked = run(experiment({**changes, "settings.engine": "vectorized"}))
    assert not torch.equal(plain.state.weights, torch.zeros_like(plain.state.weights))
    torch.testing.assert_close(stacked.state.weights, plain.state.weights, atol=1e-4, rtol=1e-3)
