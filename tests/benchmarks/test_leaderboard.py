"""The leaderboard: its page is what the generator writes, its figures those of the lines."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from entity.defenses import DEFENSES
from entity.record.json_files import write_json
from entity.setup import resolve
from entity.sweep.cells import expand

ROOT = Path(__file__).parents[2]
NAMES = (
    "rivals.lines",
    "rivals.standing",
    "rivals.own",
    "rivals.page",
    "rivals.rank_plot",
    "leaderboard",
)


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
    lines = board.lines.read_lines()
    known = board.lines.identities_of({one.planned for one in lines})
    assert len(known) == len(lines) > 100
    assert all(known[one.config_hash] == one.planned for one in lines)


def test_every_defense_of_the_package_is_in_it(board):
    planned = board.lines.planned()
    rules = {"fedprox", "local_dp", "fedavgm", "fedadam", "fedyogi"}
    assert {each.defense for each in planned} == {*DEFENSES} | rules
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


@pytest.mark.usefixtures("forget_plugins")
def test_a_method_of_ones_own_stands_on_a_page_of_its_own(board, tmp_path, monkeypatch):
    """The study's grid is cut to two cells, so that this takes no half minute."""
    chosen = board.own.study.find("rivals")
    one = {"seed": ["1"], "data": ["IID"], "attack": ["badnets"]}
    axes = tuple(
        replace(
            axis, values=tuple(v for v in axis.values if v.label in one.get(axis.name, v.label))
        )
        for axis in chosen.grid.axes
    )
    small = replace(chosen, grid=replace(chosen.grid, axes=axes))
    monkeypatch.setattr(board.own.study, "find", lambda name: small)
    board.lines.planned.cache_clear()
    board.lines.identities.cache_clear()
    plugin = ROOT / "examples/own/norm_gate.py"
    options = ["--plugins", str(plugin), "--add", "defense=norm_gate"]
    grid = board.own.grid_with([plugin], ["defense=norm_gate"])
    for cell in expand(grid, tmp_path / "runs"):
        if cell.labels["defense"] in ("undefended", "norm_gate"):
            cell.folder.mkdir(parents=True)
            write_json(cell.folder / "config.json", resolve.to_json(cell.config))
            summary = {
                "state": "finished", "config_hash": cell.identity, "rounds": 25,
                "mta": {"last10": 0.96}, "consistency": {"worst_asr": 0.8},
                "seconds": {"total": 9.0, "aggregate": 2.5},
            }  # fmt: skip
            write_json(cell.folder / "summary.json", summary)
    before = board.leaderboard.PAGE.read_text(), board.lines.STORE.read_text()
    command = ["leaderboard", "--runs", str(tmp_path / "runs"), *options]
    monkeypatch.setattr(sys, "argv", [*command, "--page", str(tmp_path / "mine.md")])
    monkeypatch.setattr(board.leaderboard, "read_lines", list)
    assert board.leaderboard.main() == 0
    text = (tmp_path / "mine.md").read_text()
    assert "| norm_gate | 0 of 1 | 80.0 | 0.0 |" in text
    assert f"`drop reproduce rivals {' '.join(options)} --where 'data=IID' defense=norm" in text
    assert "`drop reproduce rivals --where 'data=IID' defense=undefended" in text
    assert "![Mean ranks by worst ASR](mine.svg)" in text
    assert "| IID | 1 | 1 of 38 |" in text
    assert (tmp_path / "mine.svg").exists()
    assert (board.leaderboard.PAGE.read_text(), board.lines.STORE.read_text()) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--add", "defense=median"], "--add: needs --runs, and --page for a page of its own"),
        (["--plugins", "mine.py"], "--plugins: needs --runs, and --page for a page of its own"),
        (["--plugins", "mine.py", "--page", "mine.md"], "--plugins: needs --runs, and --page"),
        (["--page", "nowhere/mine.md"], "--page nowhere/mine.md: there is no folder nowhere"),
        (["--runs", "nowhere"], "--runs nowhere: is no folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    board, tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.chdir(tmp_path)
    before = board.leaderboard.PAGE.read_text(), board.lines.STORE.read_text()
    monkeypatch.setattr(sys, "argv", ["leaderboard", *words])
    with pytest.raises(SystemExit) as ended:
        board.leaderboard.main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err
    assert (board.leaderboard.PAGE.read_text(), board.lines.STORE.read_text()) == before
    assert not [*tmp_path.iterdir()]
