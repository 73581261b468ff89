import json

import pytest

from entity.attacks import ATTACKS
from entity.cli.list import CATALOGUE, GROUPS, group_of, rows
from entity.config.schema import ConfigError
from entity.config.shipped import names
from entity.dataset import DATASETS
from entity.defenses import ALIASES, DEFENSES
from entity.models import MODELS
from entity.poisons import POISONS

REGISTRIES = {
    "defenses": DEFENSES,
    "attacks": ATTACKS,
    "poisons": POISONS,
    "datasets": DATASETS,
    "models": MODELS,
}


@pytest.mark.parametrize("kind", REGISTRIES)
def test_everything_that_can_be_chosen_is_listed_in_order_with_a_line_of_what_it_is(kind):
    listed = rows(kind)
    beside = ["imagefolder:NAME"] if kind == "datasets" else []
    names = [row["name"] for row in listed]
    if kind == "defenses":  # in groups
        assert sorted(names) == sorted(REGISTRIES[kind])
    else:
        assert names == [*REGISTRIES[kind], *beside]
    for row in listed:
        assert 10 < len(row["summary"]) < 120, row
        assert "\n" not in row["summary"]
        assert all(isinstance(value, str) for value in row.values())
    assert json.loads(json.dumps(listed)) == listed


def test_every_defense_is_in_one_group_and_groups_stand_together():
    grouped = [name for names in GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(DEFENSES)
    order = [row["group"] for row in rows("defenses")]
    assert list(dict.fromkeys(order)) == list(GROUPS)
    assert order == sorted(order, key=list(GROUPS).index)
    assert group_of("somebody's") == "others"


def test_every_kind_is_in_the_catalogue():
    assert list(CATALOGUE) == [*REGISTRIES, "configs"]


def test_every_shipped_configuration_is_in_one_row_of_its_folder():
    listed = rows("configs")
    named = {
        row["name"].replace("DEFENSE", defense)
        for row in listed
        for defense in row["defenses"].split(", ")
    }
    assert named == {name for name in names() if not name.endswith("/federation")}
    demo = next(row for row in listed if row["name"] == "mnist5k/DEFENSE")
    assert demo["summary"] == ("cnn on mnist5k: 10 clients, 4 malicious, 10 a round, 40 rounds")
    assert all(10 < len(row["summary"]) < 120 for row in listed)


def test_a_defense_says_what_its_threat_model_grants_and_its_other_names():
    defenses = {row["name"]: row for row in rows("defenses")}
    assert defenses["undefended"]["needs"] == "nothing"
    assert "client identity" in defenses["drop"]["needs"]
    assert "clean data" in defenses["drop"]["needs"]
    assert defenses["drop"]["aliases"] == "maze"
    listed = {alias for row in defenses.values() for alias in row["aliases"].split(", ") if alias}
    assert listed == set(ALIASES)


def test_an_unknown_kind_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"^drop list defences is unknown\. Did you mean defen"):
        rows("defences")
