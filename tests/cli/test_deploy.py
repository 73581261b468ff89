"""`drop deploy init`: a whole Flower app, or one sentence."""

import json
import tomllib

import pytest

from entity.cli import main
from entity.cli.deploy import write_app
from entity.config.schema import ConfigError
from entity.setup import resolve


def test_the_app_holds_the_experiment_that_was_asked_for(tmp_path, capsys):
    folder = tmp_path / "my federation"
    assert main(["deploy", "init", str(folder), "--rounds", "3", "--defense.type", "krum"]) == 0
    shown = capsys.readouterr().out
    assert "experiment.json" in shown
    readme = (folder / "README.md").read_text()
    superlink = next(line for line in shown.splitlines() if "flower-superlink" in line).strip()
    commands = " ".join(readme.replace("\\\n", " ").split())
    assert superlink in commands  # the next command is the first of the README
    assert shown.endswith(f"flwr run '{folder}' here --stream\n")
    config = resolve.experiment(resolve.read(folder / "federation" / "experiment.json"))
    assert config.federation.rounds == 3
    assert config.server.defense.type == "krum"
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "my-federation"
    assert f"num-partitions={config.federation.size}" in readme


def test_flower_takes_the_app(tmp_path, experiment):
    validate = pytest.importorskip("flwr.common.config")
    write_app(tmp_path / "app", experiment())
    project = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    fine, errors, warnings = validate.validate_config(project, True, tmp_path / "app")
    assert (fine, errors, warnings) == (True, [], [])


def test_the_run_config_of_the_app_is_the_one_that_is_read(tmp_path, experiment):
    flower = pytest.importorskip("entity.flower.run_config")
    write_app(tmp_path / "app", experiment())
    project = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    given = project["tool"]["flwr"]["app"]["config"]
    assert flower.run_config(given) == flower.RunConfig()
    read = flower.experiment(tmp_path / "app" / "federation" / "experiment.json", given)
    assert json.dumps(resolve.to_json(read)) == json.dumps(resolve.to_json(experiment()))


@pytest.mark.parametrize("what", ["file in it", "file"])
def test_a_folder_that_is_taken_is_left_as_it_is(what, tmp_path, experiment):
    folder = tmp_path / "app"
    if what == "file":
        folder.write_text("mine")
    else:
        folder.mkdir()
        (folder / "notes").write_text("mine")
    with pytest.raises(ConfigError, match="is not empty; choose a new folder"):
        write_app(folder, experiment())
    assert folder.is_file() or [path.name for path in folder.iterdir()] == ["notes"]


def test_a_wrong_field_writes_nothing(tmp_path, capsys):
    assert main(["deploy", "init", str(tmp_path / "app"), "--ronds", "3"]) == 2
    assert "--ronds is unknown" in capsys.readouterr().err
    assert not (tmp_path / "app").exists()
