"""The shipped configurations mean the experiments that they always meant.

`identities.txt` was written when each file held its whole experiment, before files could extend
one another.
"""

from pathlib import Path

import pytest

from entity.config.shipped import names, shipped
from entity.setup.read import read
from entity.setup.resolve import experiment, identity

FROZEN = dict(
    line.split() for line in Path(__file__).with_name("identities.txt").read_text().splitlines()
)


@pytest.mark.parametrize(("name", "hash"), FROZEN.items(), ids=FROZEN)
def test_a_shipped_configuration_keeps_its_identity(name, hash):
    assert identity(experiment(read(shipped(name)))) == hash


def test_all_shipped_configurations_are_frozen_and_no_two_alike():
    assert set(FROZEN) == set(names())
    assert len(FROZEN) == len(set(FROZEN.values())) == 164
