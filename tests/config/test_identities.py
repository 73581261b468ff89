"""The shipped configurations mean the experiments that they always meant.

`identities.txt` was first written when each file held its whole experiment, before files could
extend one another. `UPDATE_IDENTITIES=1 pytest tests/config/test_identities.py` rewrites it: for a
raised `ERA`, or for a configuration that was changed on purpose.
"""

import os
from pathlib import Path

import pytest

from entity.config.shipped import names, shipped
from entity.setup.read import read, read_file
from entity.setup.resolve import experiment, identity, to_json

LIST = Path(__file__).with_name("identities.txt")
if os.environ.get("UPDATE_IDENTITIES"):
    LIST.write_text(
        "".join(
            f"{name} {identity(experiment(read(shipped(name))))}\n"
            for name in sorted(names())
            if not name.endswith("/federation")
        )
    )
FROZEN = dict(line.split() for line in LIST.read_text().splitlines())


@pytest.mark.parametrize(("name", "hash"), FROZEN.items(), ids=FROZEN)
def test_a_shipped_configuration_keeps_its_identity(name, hash):
    assert identity(experiment(read(shipped(name)))) == hash


def test_all_that_is_shipped_is_frozen_and_no_two_alike():
    federations = {name for name in names() if name.endswith("/federation")}
    assert set(FROZEN) == set(names()) - federations
    assert len(FROZEN) == len(set(FROZEN.values())) == 243
    assert len(federations) == 10


@pytest.mark.parametrize("name", [name for name in FROZEN if name.endswith("/undefended")])
def test_a_federation_is_the_undefended_configuration_of_its_folder(name):
    federation = shipped(name.replace("undefended", "federation"))
    assert identity(experiment(read(federation))) == FROZEN[name]


def test_a_file_that_holds_its_whole_experiment_means_what_the_short_one_does():
    """`original_drop.json` is how the files were written for the original's code."""
    whole = Path(__file__).with_name("original_drop.json")
    assert "extends" not in whole.read_text()
    assert to_json(experiment(read(whole))) == to_json(experiment(read(shipped("cifar10/drop"))))
    assert identity(experiment(read(whole))) == FROZEN["cifar10/drop"]


@pytest.mark.parametrize("name", sorted(FROZEN))
def test_a_shipped_configuration_is_its_folder_s_federation_and_one_defense(name):
    tables = read_file(shipped(name), name)
    assert tables.pop("extends") == "federation.json"
    assert tables.keys() == {"server"}
    assert tables["server"].keys() == {"defense"}
    assert tables["server"]["defense"]["type"] == name.rsplit("/", 1)[-1]
