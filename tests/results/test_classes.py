"""Classes by name in conditions and groups of runs, from what a folder says and no code of it."""

import json
from pathlib import Path

import pytest
import torch
from plugin_registry import forget
from safetensors.torch import save_file

import entity
from entity.cli import main
from entity.config.schema import ConfigError
from entity.results.filter import parse
from entity.results.store import collect, grouped, select
from entity.setup import resolve


@pytest.fixture
def keep(tmp_path):
    """Write a run directory of a data set, whose config nobody needs to resolve."""

    def write(name, dataset, target, victim=None, classes=None, plugins=()):
        folder = tmp_path / "runs" / name
        (folder / "artifacts").mkdir(parents=True)
        attack = {"type": "badnets", "target_class": target, "victim_class": victim}
        config = {
            "name": name, "dataset": dataset, "plugins": list(plugins),
            "client": {"attack": attack}, "federation": {"number_of_malicious_clients": 2},
            "settings": {"seed": ord(name[0])},
        }  # fmt: skip
        summary = {"name": name, "state": "finished", "mta": {"last10": 0.9}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "summary.json").write_text(json.dumps(summary))
        if classes is not None:
            said = {"example": json.dumps({"target": target, "classes": classes})}
            file = folder / "artifacts/example.safetensors"
            save_file({"labels": torch.zeros(1)}, str(file), said)
        return folder

    return write


@pytest.fixture
def names(tmp_path):
    """Say which runs some conditions choose."""

    def chosen(*words):
        runs = collect([tmp_path / "runs"])
        return [run.facts["name"] for run in select(runs, parse(words))]

    return chosen


def test_a_class_is_chosen_by_its_name_or_its_number(keep, names):
    keep("a", "cifar10", 5, 3)
    keep("b", "cifar10", 3)
    keep("c", "mnist5k", 5)
    assert names("target_class=dog") == ["a"]
    assert names("target_class=Dog") == ["a"]
    assert names("client.attack.target_class=dog,cat") == ["a", "b"]
    assert names("target_class=5") == ["a", "c"]
    assert names("target_class!=dog") == ["b", "c"]
    assert names("target_class>=5") == ["a", "c"]
    assert names("target_class=dog or target_class=3") == ["a", "b"]
    assert names("victim_class=cat") == ["a"]
    assert names("victim_class=null") == ["b", "c"]


def test_a_number_is_the_number_where_a_class_is_called_so(keep, names):
    keep("a", "mine", 0, classes=["1", "0"])
    keep("b", "mine", 1, classes=["1", "0"])
    assert names("target_class=1") == ["b"]


def test_names_of_other_data_sets_are_those_that_the_run_kept_and_no_plugin_is_run(
    keep, names, tmp_path
):
    plugin = tmp_path / "odd.py"
    plugin.write_text(f"open({str(tmp_path / 'was_run')!r}, 'w')\n")
    keep("a", "pets", 1, classes=["cat", "old dog"], plugins=[str(plugin)])
    keep("b", "pets", 1)
    keep("c", "imagefolder:pets", 0, classes=["old dog", "cat"])
    assert names("target_class=old dog") == ["a", "c"]
    assert names("target_class=1") == ["a", "b"]
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [b"", b"\0" * 64, json.dumps([1]).encode()])
def test_a_damaged_example_has_no_names(keep, names, content):
    folder = keep("a", "pets", 1)
    (folder / "artifacts/example.safetensors").write_bytes(content)
    assert names("target_class=1") == ["a"]
    with pytest.raises(ConfigError, match="is not known; give a number"):
        names("target_class=dog")


@pytest.mark.parametrize("classes", ["cat", [1, 2], None, {"a": 1}])
def test_names_that_are_none_are_not_taken(keep, names, classes):
    keep("a", "pets", 1, classes=classes)
    with pytest.raises(ConfigError, match="is no known class of pets"):
        names("target_class=cat")


@pytest.mark.parametrize(
    ("word", "says"),
    [
        (
            "target_class=dgo",
            "target_class=dgo: is no class of cifar10, mnist5k. Did you mean dog?",
        ),
        ("victim_class!=dgo", "victim_class!=dgo: is no class of cifar10. Did you mean dog?"),
        ("target_class=qqq", "target_class=qqq: is no class of cifar10, mnist5k. Allowed are "),
    ],
)
def test_a_name_that_is_no_class_is_one_sentence(keep, word, says, tmp_path, capsys):
    keep("a", "cifar10", 5, 3)
    keep("b", "mnist5k", 5)
    assert main(["results", str(tmp_path / "runs"), "--where", word]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"drop: --where {says}")
    assert len(said.splitlines()) == 1


def test_groups_show_the_names(keep, tmp_path, capsys):
    keep("a", "cifar10", 5)
    keep("b", "cifar10", 5)
    keep("c", "mnist5k", 5)
    keep("d", "pets", 5)
    keep("e", "pets", 7, classes=["one"])
    table = grouped(collect([tmp_path / "runs"]), ["target_class"])
    assert [row[:2] for row in table.rows] == [("5 (dog)", 2), (5, 2), (7, 1)]
    assert main(["results", str(tmp_path / "runs"), "--by", "target_class"]) == 0
    assert "5 (dog)" in capsys.readouterr().out
    pytest.importorskip("pandas")
    frame = entity.results(tmp_path / "runs").where("target_class=dog").means("target_class")
    assert list(frame["target_class"]) == ["5 (dog)"]


def test_a_run_without_an_attack_has_no_class(keep, names, tmp_path):
    folder = keep("a", "cifar10", 5)
    config = json.loads(Path(folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "client": {"attack": None}}))
    keep("b", "cifar10", 5)
    assert names("target_class=dog") == ["b"]
    assert names("target_class=null") == ["a"]
    table = grouped(collect([tmp_path / "runs"]), ["target_class"])
    assert [row[0] for row in table.rows] == [None, "5 (dog)"]


def test_a_name_that_one_run_knows_is_that_of_all_runs_of_its_data_set(keep, tmp_path):
    keep("a", "pets", 1)
    keep("b", "pets", 1, classes=["cat", "dog"])
    keep("c", "cars", 1)
    table = grouped(collect([tmp_path / "runs"]), ["dataset", "target_class"])
    assert [row[:3] for row in table.rows] == [("pets", "1 (dog)", 2), ("cars", 1, 1)]


@pytest.mark.usefixtures("forget_plugins")
def test_the_classes_of_an_own_data_set_are_in_the_record(tmp_path, tables, capsys):
    plugin = tmp_path / "insects.py"
    plugin.write_text(
        "import numpy as np\n"
        "from torch import nn\n"
        "from entity.dataset import Arrays\n"
        "x, y = np.random.default_rng(1).normal(size=(60, 3)), np.arange(60) % 2\n"
        "DATASETS = {'insects': lambda: Arrays((x, y), (x, y), ('ant', 'bee'))}\n"
        "MODELS = {'line': nn.Linear}\n"
    )
    attack = {
        "type": "badnets",
        "poison": "label_flip",
        "target_class": "bee",
        "victim_class": "ant",
    }
    changes = {"dataset": "insects", "model": "line", "client.attack": attack, "server.held_out": 4}
    data = {**tables({**changes, "federation.rounds": 1}), "plugins": [str(plugin)]}
    data["settings"]["datasets_path"] = str(tmp_path)
    config = resolve.experiment(data)
    entity.run(config, tmp_path / "runs" / "one")
    summary = json.loads((tmp_path / "runs" / "one" / "summary.json").read_text())
    assert summary["classes"] == ["ant", "bee"]
    assert summary["config_hash"] == resolve.identity(config)
    plugin.unlink()
    forget()
    shown = [
        "results",
        str(tmp_path / "runs"),
        "--where",
        "target_class=bee",
        "--by",
        "victim_class",
    ]
    assert main(shown) == 0
    assert "0 (ant)" in capsys.readouterr().out
    assert main(["results", str(tmp_path / "runs"), "--where", "target_class=wasp"]) == 2
    assert "is no class of insects. Allowed are numbers and ant, bee." in capsys.readouterr().err
