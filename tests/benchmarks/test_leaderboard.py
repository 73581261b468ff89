"""The leaderboard: its page is what the generator writes, its figures those of the lines."""

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

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
    "rivals.cost_plot",
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
    assert board.leaderboard.COSTS.read_text() == board.page.costs(lines)


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
    assert "(critical difference 1.91 of at most 3 ranks)" in text
    assert "Left out" not in text
    figure = board.page.figure(lines)
    assert figure.index("DROP+") < figure.index("Median") < figure.index("Undefended")
    assert "<circle" in figure


def three_blocks(board, worst):
    """Lines of three working blocks, undefended and with defenses of these worst ASRs in all."""
    return [
        line(board, name, attack, mta=mta, worst=asr)
        for name, asr, mta in (("undefended", 0.9, 0.97), *worst)
        for attack in ("badnets", "dba", "pgd")
    ]


def test_defenses_are_compared_over_the_blocks_that_all_have_and_others_stand_apart(board):
    """FLIP holds in its one block, DROP+ in three of four: neither is above or below for that."""
    lines = [
        *three_blocks(board, [("drop_plus", 0.0, 0.96), ("median", 0.04, 0.97), ("rfa", 0.6, 0.9)]),
        line(board, "undefended", "iba", mta=0.97, worst=0.9),
        line(board, "drop_plus", "iba", mta=0.5, worst=0.2),
        line(board, "flip", mta=0.97, worst=0.01),
        line(board, "undefended", "neurotoxin", worst=0.1),  # void: counts for nobody
        line(board, "rfa", "neurotoxin", worst=0.0),
    ]
    found = board.standing.Board(lines).compared("IID")
    assert sorted(found.defenses) == ["drop_plus", "median", "rfa"]
    assert [attack for _, attack, _ in found.blocks] == ["badnets", "dba", "pgd"]
    text = board.page.page(lines)
    main, apart = text.split("## IID")[1].split("## Dirichlet")[0].split("Not compared")
    assert "3 defenses over 3 blocks: BadNets (seed 1), DBA (seed 1), PGD (seed 1)." in main
    rows = [row.split(" | ")[:4] for row in main.splitlines() if " of 3 |" in row]
    assert rows == [
        ["| DROP+", "3 of 3", "0.0", "1.0"],
        ["| Median", "3 of 3", "4.0", "0.0"],
        ["| RFA", "0 of 3", "60.0", "7.0"],
        ["| *Undefended, for reference*", "0 of 3", "90.0", "0.0"],
    ]
    assert "| FLIP | 1 of 1 | 1.0 | 0.0 |" in apart
    assert "defense=drop_plus attack=badnets,dba,pgd seed=1`" in main
    matrix = text.split("## Attack by attack, IID")[1]
    row = next(row for row in matrix.splitlines() if row.startswith("| DROP+"))
    assert sorted(row.strip("| ").split(" | ")[1:]) == ["0.0", "0.0", "0.0", "20.0"]


def test_where_the_attack_works_in_no_block_nobody_is_ordered(board):
    lines = [
        line(board, "undefended", worst=0.1, mta=0.97),
        line(board, "median", worst=0.9, mta=0.9),
        line(board, "drop", worst=0.0, mta=0.95),
    ]
    text = board.page.page(lines)
    assert "The attack works undefended in none of them" in text
    none = board.page.NONE
    assert f"| DROP | {none} | {none} | 2.0 |" in text
    assert text.index(f"| Median | {none} |") < text.index("| *Undefended, for reference* |")
    assert "## What they cost" not in text
    assert "nothing to compare yet" in board.page.costs(lines)


def test_too_few_blocks_are_said_to_be_that_and_who_is_left_out_is_named(board):
    names = [name for name in DEFENSES if name not in ("undefended", "flip")][:30]
    lines = [line(board, "undefended", attack, worst=0.99) for attack in ("badnets", "dba")]
    lines += [
        line(board, name, attack, worst=((place + 7 * turn) % 40) / 40)
        for place, name in enumerate(names)
        for turn, attack in enumerate(("badnets", "dba"))
    ]
    text = board.page.page([*lines, line(board, "flip", worst=0.0)])
    said = next(row for row in text.splitlines() if row.startswith("- By worst ASR"))
    assert "31 defenses over 2 blocks (critical difference 34." in said
    assert "too few blocks to tell any two apart" in said
    assert "not significantly worse" not in said
    assert "Friedman's chi-square has p = 0." in said
    assert said.endswith("Left out, as too few blocks have them: FLIP.")
    assert "too few blocks to tell any two apart" in board.page.figure(lines)


def test_what_defenses_cost_stands_beside_what_they_bring(board):
    lines = three_blocks(board, [("drop", 0.0, 0.90), ("median", 0.1, 0.96), ("rfa", 0.5, 0.93)])
    lines = [replace(one, aggregate=2.0 if one.defense == "drop" else 0.1) for one in lines]
    text = board.page.page(lines)
    assert "![Worst ASR against MTA lost and against seconds a round](study/costs.svg)" in text
    assert "on the front: Undefended (90.0 %, 0); Median (10.0 %, 1); DROP (0.0 %, 7)." in text
    assert "a round, on the front: Median (10.0 %, 0.1); DROP (0.0 %, 2)." in text
    drawn = board.page.costs(lines)
    root = ElementTree.fromstring(drawn)
    dots = root.findall("{http://www.w3.org/2000/svg}circle")
    assert len(dots) == 8  # two plots of three defenses and undefended
    filled = [dot[0].text for dot in dots if dot.get("fill") != "#fff"]
    assert sorted(filled) == ["DROP", "DROP", "Median", "Median", "Undefended"]
    drop = next(dot for dot in dots if dot[0].text == "DROP")
    rfa = next(dot for dot in dots if dot[0].text == "RFA")
    assert float(drop.get("cx")) > float(rfa.get("cx"))
    assert float(drop.get("cy")) > float(rfa.get("cy"))  # downwards is better


def test_fldetector_is_read_beside_the_median_that_it_aggregates_by(board):
    lines = three_blocks(board, [("median", 0.01, 0.97), ("fldetector", 0.01, 0.96)])
    assert "FLDetector: whom its detector leaves it aggregates by the coordinate-wise median" in (
        board.page.page(lines)
    )
    assert "FLDetector: whom" not in board.page.page(three_blocks(board, [("median", 0.01, 0.97)]))
    assert "needs a clone of the repository" in board.page.page([])


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
    assert "(mine-costs.svg)" in text
    assert (tmp_path / "mine-costs.svg").exists()
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
