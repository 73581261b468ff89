"""Classes by name."""

import pytest

import entity
from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.setup import resolve
from entity.setup.class_names import number_classes


def test_names_become_numbers_in_a_file_and_on_the_command_line(tables):
    data = tables({"client.attack.target_class": "3", "client.attack.victim_class": "8"})
    attack = resolve.experiment(data).client.attack
    assert (attack.target_class, attack.victim_class) == (3, 8)
    assert entity.load("mnist5k/drop", target_class="9").client.attack.target_class == 9
    given = entity.load("cifar10/undefended", target_class="dog", victim_class="Ship")
    names = DATASETS["cifar10"].class_names
    assert names[given.client.attack.target_class] == "dog"
    assert names[given.client.attack.victim_class] == "ship"


def test_by_name_or_number_it_is_the_same_experiment():
    named = entity.load("cifar10/undefended", target_class="dog")
    numbered = entity.load("cifar10/undefended", target_class=5)
    assert resolve.to_json(named) == resolve.to_json(numbered)
    assert resolve.identity(named) == resolve.identity(numbered)


def test_a_number_is_a_number_where_classes_are_called_by_others(monkeypatch):
    tables = {"dataset": "cifar10", "client": {"attack": {"target_class": 2, "victim_class": None}}}
    number_classes(tables)
    assert tables["client"]["attack"] == {"target_class": 2, "victim_class": None}


@pytest.mark.parametrize(("name", "hint"), [("dgo", "Did you mean dog?"), ("q", "airplane")])
def test_other_names_are_refused_with_what_there_is(name, hint, capsys):
    with pytest.raises(ConfigError) as refusal:
        entity.load("cifar10/undefended", target_class=name)
    assert f'client.attack.target_class = "{name}": is no class of cifar10.' in str(refusal.value)
    assert hint in str(refusal.value)
    assert main(["run", "--config", "cifar10/undefended", "--target_class", name]) == 2
    assert "is no class of cifar10" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("field", "also"),
    [("target_class", "."), ("victim_class", ", or null for all but the target.")],
)
@pytest.mark.parametrize("given", [["cat", "dog"], {"cat": 1}])
def test_several_are_refused_with_what_they_are_called(field, also, given):
    with pytest.raises(ConfigError) as refusal:
        entity.load("cifar10/undefended", **{field: given})
    assert f"allowed is one class of cifar10, its number or its name{also} Its classes: " in str(
        refusal.value
    )
    assert "dog, " in str(refusal.value)
