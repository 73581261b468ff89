"""The server's clean samples where nobody says how many."""

import pytest

from entity.config.schema import ConfigError
from entity.setup.identity import identity
from entity.setup.load import load


def test_early_stopping_has_samples_of_its_own_as_the_original_s_file_needs():
    """Regression: the original's emnist/drop.json takes all 1,200 for num_seed, and was refused."""
    assert load("emnist/drop", held_out=None).server.held_out == 2400
    assert load("emnist/drop", held_out=None, early_stopping=False).server.held_out is None
    assert load("cifar10/drop", held_out=None).server.held_out is None
    with pytest.raises(ConfigError, match=r"raise server\.held_out or lower num_seed"):
        load("emnist/drop", held_out=1200)


def test_an_original_name_of_a_model_is_the_model():
    """Regression: its runs were others than those of the same network, and not found again."""
    assert identity(load("emnist/drop", model="emnist")) == identity(load("emnist/drop"))
