"""The shipped configurations against those of DROP's authors: the same but for what is listed."""

from pathlib import Path

import pytest
from original_values import ALONE, ARGS, DEFENSES, FOLDERS, GREY_FLIP, INTENDED

import entity
from entity.config.schema import flatten
from entity.setup import resolve

CONFIGS = Path(entity.__file__).parent / "configs"
FILES = [(folder, defense) for folder, table in DEFENSES.items() for defense in table]


def original(folder, defense):
    own = {f"{ARGS}{name}": value for name, value in DEFENSES[folder][defense].items()}
    return FOLDERS[folder] | own | ALONE.get((folder, defense), {})


def shipped(folder, defense):
    config = resolve.experiment(resolve.read(CONFIGS / folder / f"{defense}.json"))
    return dict(flatten(resolve.to_json(config)))


@pytest.mark.parametrize(("folder", "defense"), FILES)
def test_a_shipped_file_has_the_original_s_values_but_where_it_is_said(folder, defense):
    ours = shipped(folder, defense)
    for path, value in original(folder, defense).items():
        expected, _ = INTENDED.get((folder, path), (value, ""))
        assert ours[path] == expected, path


def test_every_intended_difference_is_one():
    for (folder, path), (ours, why) in INTENDED.items():
        theirs = [
            original(folder, defense)[path]
            for defense in DEFENSES[folder]
            if path in original(folder, defense)
        ]
        assert any(value != ours for value in theirs), (folder, path)
        assert why


def test_other_small_grey_images_have_flips_settings_of_emnist():
    ours = shipped("fashionmnist", "flip")
    assert {name: ours[f"{ARGS}{name}"] for name in GREY_FLIP} == GREY_FLIP
