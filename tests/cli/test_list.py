import json

import pytest

from entity.attacks import ATTACKS
from entity.cli.list import CATALOGUE, rows
from entity.config.schema import ConfigError
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
    assert [row["name"] for row in listed] == [*REGISTRIES[kind], *beside]
    for row in listed:
        assert 10 < len(row["summary"]) < 120, row
        assert "\n" not in row["summary"]
        assert all(isinstance(value, str) for value in row.values())
    assert json.loads(json.dumps(listed)) == listed


def test_every_kind_is_in_the_catalogue():
    assert list(CATALOGUE) == list(REGISTRIES)


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
