"""`initial`: a run that starts from a trained model."""

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

import entity
from entity.cli import main
from entity.config.schema import ConfigError
from entity.report.durability import after_stop
from entity.report.runs import read_run
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import assemble, recruit
from entity.setup.initial import initial_model
from entity.sweep.cells import expand
from entity.sweep.study import find

ONE_SHOT = {
    "client.attack.type": "model_replacement",
    "client.attack.participation_strategy": "after_convergence",
    "client.attack.poisoning_start_round": 2,
    "client.attack.poisoning_end_round": 3,
    "federation.rounds": 3,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tables):
    """A run without attack, which has learnt a little."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    config = resolve.experiment(tables({"client.attack": None, "federation.rounds": 2}))
    return entity.run(config, folder)


def test_round_one_starts_from_it_to_the_bit(trained, tables):
    config = resolve.experiment({**tables(), "initial": str(trained.folder)})
    roster = recruit(config, Seeds(1))[1]
    start = initial_model(config, roster)
    assert torch.equal(start.weights, trained.state.weights)
    # What a further round of the same federation makes of it is what the run itself would have.
    more = resolve.experiment(tables({"client.attack": None, "federation.rounds": 1}))
    fresh = entity.run(more)
    continued = entity.run(
        resolve.experiment(
            {
                **tables({"client.attack": None, "federation.rounds": 1}),
                "initial": str(trained.folder),
            }
        )
    )
    assert continued.rounds[-1]["mta"] > fresh.rounds[-1]["mta"]


def test_the_hash_is_in_the_identity_and_the_place_is_not(trained, tables, tmp_path):
    file = tmp_path / "copy.safetensors"
    file.write_bytes((trained.folder / "model.safetensors").read_bytes())
    of_run = resolve.experiment({**tables(), "initial": str(trained.folder)})
    of_file = resolve.experiment({**tables(), "initial": str(file)})
    assert of_run.initial != of_file.initial
    assert resolve.identity(of_run) == resolve.identity(of_file)
    plain = resolve.experiment(tables())
    assert plain.initial is None
    assert resolve.identity(plain) != resolve.identity(of_run)
    assert resolve.experiment(resolve.to_json(of_run)) == of_run


def test_a_file_beside_the_configuration_is_meant_and_an_edited_one_is_refused(
    trained, tables, tmp_path, monkeypatch
):
    tensors = load_file(trained.folder / "model.safetensors")
    save_file(tensors, tmp_path / "start.safetensors")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**tables(), "initial": "start.safetensors"}))
    config = entity.load(path)
    assert config.initial.startswith(f"{tmp_path / 'start.safetensors'}#sha256=")
    save_file({name: value + 1 for name, value in tensors.items()}, tmp_path / "start.safetensors")
    with pytest.raises(ConfigError, match="has changed since it was recorded"):
        resolve.experiment(resolve.to_json(config))


def test_a_single_shot_from_there_and_what_is_left_after_it(trained, tables, tmp_path):
    data = {**tables(ONE_SHOT), "initial": str(trained.folder)}
    run = entity.run(resolve.experiment(data), tmp_path / "run")
    poisoned = [line["round"] for line in run.rounds if line["malicious"]]
    assert set(poisoned) <= {2}
    assert set(after_stop(read_run(tmp_path / "run"))) == {0, 1}


def test_other_models_and_no_models_are_refused_before_anything_is_written(
    trained, tables, tmp_path, capsys
):
    def refused(start, **changes):
        config = resolve.experiment({**tables(changes), "initial": str(start)})
        with pytest.raises(ConfigError) as refusal:
            entity.run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()
        assert "\n" not in str(refusal.value)
        return str(refusal.value)

    assert "is of another model than lenet: it has features.0.weight of shape" in refused(
        trained.folder, model="lenet"
    )
    tensors = load_file(trained.folder / "model.safetensors")
    name = next(iter(tensors))
    save_file({key: tensors[key] for key in tensors if key != name}, tmp_path / "less.safetensors")
    assert f"it has no {name}" in refused(tmp_path / "less.safetensors")
    save_file({**tensors, "extra": torch.ones(1)}, tmp_path / "more.safetensors")
    assert "it has extra, which that has not" in refused(tmp_path / "more.safetensors")
    save_file({**tensors, name: torch.ones(2)}, tmp_path / "odd.safetensors")
    assert f"it has {name} of shape (2,), not" in refused(tmp_path / "odd.safetensors")
    save_file({**tensors, name: tensors[name] * torch.nan}, tmp_path / "nan.safetensors")
    assert f"holds a model that is not finite, in {name}" in refused(tmp_path / "nan.safetensors")
    save_file({**tensors, name: tensors[name].long()}, tmp_path / "whole.safetensors")
    assert f"has {name} of int64; it must be of float32." in refused(tmp_path / "whole.safetensors")
    save_file({**tensors, name: tensors[name].double() + 1e300}, tmp_path / "huge.safetensors")
    assert f"that is not finite, in {name}" in refused(tmp_path / "huge.safetensors")
    save_file({f"module.{key}": tensors[key] for key in tensors}, tmp_path / "of_gpus.safetensors")
    assert "all its names begin with module., as of nn.DataParallel: save" in refused(
        tmp_path / "of_gpus.safetensors"
    )
    for old in (True, False):
        torch.save(tensors, tmp_path / "m.pt", _use_new_zipfile_serialization=old)
        said = refused(tmp_path / "m.pt")
        command = said.partition("make one by safetensors.torch.")[2].removesuffix(".")
        with contextlib.chdir(tmp_path):
            exec(command, {"save_file": save_file, "torch": torch})  # what it says works
        assert load_file(tmp_path / "m.safetensors").keys() == tensors.keys()
    (tmp_path / "text.safetensors").write_text("no model")
    assert "cannot be read as safetensors" in refused(tmp_path / "text.safetensors")
    assert main(["run", "--config", "mnist5k/undefended", "--initial", "no/such/file"]) == 2
    assert "initial = no/such/file: there is no such file" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert (
        main(["run", "--config", "mnist5k/undefended", "--initial", str(tmp_path / "empty")]) == 2
    )
    assert "holds no model.safetensors" in " ".join(capsys.readouterr().err.split())


def test_half_precision_is_taken_and_said(trained, tables, tmp_path, caplog):
    tensors = load_file(trained.folder / "model.safetensors")
    half = {key: value.half() for key, value in tensors.items()}
    save_file(half, tmp_path / "half.safetensors")
    config = resolve.experiment({**tables(), "initial": str(tmp_path / "half.safetensors")})
    roster = recruit(config, Seeds(1))[1]
    start = initial_model(config, roster).weights
    assert start.dtype == torch.float32
    assert torch.equal(start, trained.state.weights.half().float())
    assert "initial: its float16 numbers are taken as float32" in caplog.text


def test_the_shipped_study_starts_from_a_converged_model_and_its_attacks_stop(tmp_path):
    cells = expand(find("durability").grid, tmp_path)
    assert len(cells) == 6
    for cell in cells:
        attack = cell.config.client.attack
        assert attack.participation_strategy == "after_convergence"
        assert attack.poisoning_start_round < attack.poisoning_end_round < 8
    world = assemble(cells[0].config)
    start = initial_model(cells[0].config, world.roster)
    assert world.judge(world.model(start))["mta"] == 0.971  # as its last round says


def test_a_run_goes_on_with_a_start_model_that_has_moved(trained, tables, tmp_path, capsys):
    file = tmp_path / "start.safetensors"
    file.write_bytes((trained.folder / "model.safetensors").read_bytes())
    folder = tmp_path / "run"
    plain = tables({"federation.rounds": 1})
    entity.run(resolve.experiment({**plain, "initial": str(file)}), folder)
    moved = file.rename(tmp_path / "moved.safetensors")
    go_on = ["run", "--resume", str(folder), "--quiet", "--rounds", "2"]
    assert main(go_on) == 2
    assert "say where to by --initial" in " ".join(capsys.readouterr().err.split())
    other = trained.folder / "config.json"
    assert main([*go_on, "--initial", str(other)]) == 2
    assert main([*go_on, "--initial", str(moved)]) == 0, capsys.readouterr().err
