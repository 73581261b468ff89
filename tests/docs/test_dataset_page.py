"""docs/extend/dataset.md names the defenses that are for images alone, as their `needs` do."""

from pathlib import Path

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.results.titles import TITLES

PAGE = Path(__file__).parents[2] / "docs" / "extend" / "dataset.md"


def test_the_page_names_every_defense_that_makes_up_images_and_no_other():
    said = PAGE.read_text().partition("All defenses work on any data but")[2]
    said = said.partition("which are refused")[0]
    words = {word.strip(",:.") for word in said.replace("'s", "").split()}
    needs = {name: entry.needs(load(entry.hyperparameters, {})) for name, entry in DEFENSES.items()}
    assert {name for name in DEFENSES if TITLES[name] in words} == {
        name for name in DEFENSES if needs[name].images
    }
