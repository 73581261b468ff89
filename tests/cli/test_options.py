"""Fields of a configuration on the command line."""

import pytest

from entity.cli.options import overrides
from entity.config.schema import ConfigError


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ([], []),
        (["--a", "1", "--b=2", "--c"], [("a", "1"), ("b", "2"), ("c", None)]),
        (["--a", "-1", "--b", "-1e-3"], [("a", "-1"), ("b", "-1e-3")]),
        (["--a=", "--b=x=y"], [("a", ""), ("b", "x=y")]),
        (["--a", "--", "--b", "1"], [("a", "--"), ("b", "1")]),
        (["--client.lr", "0.1"], [("client.lr", "0.1")]),
    ],
)
def test_words_become_names_and_values(words, pairs):
    assert overrides(words) == pairs


@pytest.mark.parametrize("words", [["x"], ["--a", "1", "x"], ["--a=1", "x"], ["-a", "1"]])
def test_words_that_belong_to_no_option(words):
    with pytest.raises(ConfigError, match="belongs to no option"):
        overrides(words)
