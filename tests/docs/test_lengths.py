"""A method is read in one sitting: its file has at most 200 lines, and no function above 60."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "entity"
METHODS = sorted(
    path
    for folder in ("defenses", "attacks", "poisons")
    for path in (PACKAGE / folder).glob("*.py")
)


@pytest.mark.parametrize("path", METHODS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_method_has_at_most_200_lines(path):
    assert len(path.read_text().splitlines()) <= 200


def test_no_function_has_more_than_60_lines():
    found = {
        f"{path.relative_to(PACKAGE)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert len(found) > 1000
    assert {name: lines for name, lines in found.items() if lines > 60} == {}
