"""A federation in one process for every test of this folder.

grid = make_grid({1: node, 2: other})
strategy.start(grid, arrays, num_rounds=2)
"""

import importlib.util
from collections.abc import Callable

import pytest

if importlib.util.find_spec("flwr") is None:  # not imported before `loopback` has set its switches
    pytest.skip("could not import 'flwr'", allow_module_level=True)

from loopback import Federation, Loopback, Node


@pytest.fixture(scope="session")
def federation() -> Federation:
    """`Federation`."""
    return Federation()


@pytest.fixture(scope="session")
def make_grid() -> Callable[[dict[int, Node]], Loopback]:
    """`Loopback`."""
    return Loopback
