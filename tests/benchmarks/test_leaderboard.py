"""The leaderboard: its page is what the generator writes, its figures those of the lines."""

import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from entity.defenses import DEFENSES

ROOT = Path(__file__).parents[2]
NAMES = ("rivals.lines", "rivals.standing", "rivals.page", "rivals.rank_plot", "leaderboard")


@pytest.fixture
def board():
    """The modules of benchmarks/rivals, and the command, by their last names."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        yield SimpleNamespace(
            **{name.split(".")[-1]: importlib.import_module(name) for name in NAMES}
        )
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
        for name in [*sys.modules]:
            if name.split(".")[0] in ("rivals", "leaderboard", "pages"):
                del sys.modules[name]


def line(board, defense, attack="badnets", data="IID", seed=1, mta=0.9, worst=0.0, fpr=0.0):
    return board.lines.Line(data, attack, defense, seed, "", "c", mta, worst, None, fpr, 0.25)


def test_the_page_is_what_the_generator_writes(board):
    lines = board.lines.read_lines()
    assert board.leaderboard.PAGE.read_text() == board.page.page(lines)
    assert board.leaderboard.FIGURE.read_text() == board.page.figure(lines)


@pytest.mark.slow
def test_committed_lines_are_of_experiments_that_are_planned_today(board):
    known = board.lines.identities()
    assert all(known[one.config_hash] == one.planned for one in board.lines.read_lines())


def test_every_defense_of_the_package_is_in_it(board):
    planned = board.lines.planned()
    assert {each.defense for each in planned} == {*DEFENSES}
    assert {each.seed for each in planned} == {1, 2, 3}


def test_only_attacks_that_work_count_and_accuracy_is_beside_the_undefended_run(board):
    lines = [
        line(board, "undefended", mta=0.97, worst=0.9),
        line(board, "undefended", "dba", mta=0.97, worst=0.4),
        line(board, "drop", mta=0.95, worst=0.05, fpr=0.1),
        line(board, "drop", "dba", mta=0.93, worst=0.9),
        line(board, "drop", "pgd", mta=0.5, worst=0.9),  # nobody knows whether it works
    ]
    found = board.standing.Board(lines)
    drop = found.standing("drop", "IID")
    assert (drop.held, drop.blocks, drop.worst) == (1, 1, 0.05)
    assert drop.lost == pytest.approx(0.03)
    assert (drop.honest, drop.seconds) == (pytest.approx(0.1 / 3), 0.25)
    assert found.cell("IID", "badnets", "drop") == 0.05
    assert found.cell("IID", "dba", "drop") is None
    assert found.standing("drop", "Dirichlet 0.5").seconds is None


def test_the_page_of_some_lines(board):
    lines = [
        line(board, name, attack, seed=seed, mta=0.9 + place / 100, worst=0.9 - 0.3 * place)
        for place, name in enumerate(("undefended", "median", "drop", "drop_plus"))
        for attack in ("badnets", "dba", "pgd")
        for seed in (1, 2)
    ]
    text = board.page.page(lines)
    assert "| IID | 1 | 12 of " in text
    assert f"| DROP+ | 6 of 6 | 0.0 | -3.0 | {board.page.NONE} | 0.0 | 0.250 | `drop" in text
    assert "defense=drop_plus attack=badnets,dba,pgd seed=1,2`" in text
    assert "4 defenses over 6 blocks" in text
    assert "DROP+ is first" in text
    figure = board.page.figure(lines)
    assert figure.index("DROP+") < figure.index("Median") < figure.index("Undefended")
    assert "<circle" in figure
