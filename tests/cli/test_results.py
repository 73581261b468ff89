"""`drop results` as a user meets it; no experiment is run here."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from entity.cli import console, main
from entity.record.json_files import write_json
from entity.sweep.cells import expand
from entity.sweep.grid_file import read
from entity.sweep.study import find


def test_results_are_one_plain_line_a_run_where_there_is_no_terminal(cells, capsys, finish):
    for place, cell in enumerate(cells):
        finish(cell, mta=place / 4)
    assert main(["results"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:7] == ["name", "defense", "attack", "seed", "lr", "MTA", "%"]
    assert len(lines) == 4
    assert lines[0].split()[:6] == ["lr0.1-seed1", "undefended", "badnets", "1", "0.1", "0.0"]


def test_results_by_columns_are_means_over_the_rest(cells, capsys, finish):
    for cell, mta in zip(cells, (0.5, 0.6, 0.7, 0.8), strict=True):
        finish(cell, mta=mta)
    assert main(["results", "runs/tiny", "--by", "lr", "--format", "md"]) == 0
    shown = capsys.readouterr()
    assert "| 0.1 | 2 | 60.0 ± 14.1 |" in shown.out
    caption = "MTA and ASR are means of the last 10 evaluated rounds, or as many as there are.\n"
    assert shown.err == caption
    assert main(["results", "runs/tiny", "--by", "defense", "--format", "latex"]) == 0
    shown = capsys.readouterr()
    assert r"Undefended & 4 & 65.0 $\pm$ 12.9 &" in shown.out
    assert "rows pool runs that differ in client.lr" in shown.err
    finish(cells[0], "interrupted")
    assert main(["results", "runs/tiny", "--by", "lr", "--format", "csv"]) == 0
    shown = capsys.readouterr()
    assert "1 of 4 runs are not finished and are left out" in shown.err
    lines = {line["lr"]: line for line in csv.DictReader(io.StringIO(shown.out))}
    assert {lr: (line["n"], line["mta_mean"]) for lr, line in lines.items()} == {
        "0.1": ("1", "0.7"),
        "0.2": ("2", "0.7"),
    }
    assert lines["0.1"]["mta_sd"] == ""
    assert float(lines["0.2"]["mta_sd"]) == pytest.approx(0.02**0.5)


def test_the_note_is_of_the_runs_in_the_table(cells, capsys, finish):
    for cell, state, rounds in zip(cells, ("finished", "interrupted"), (10, 3), strict=False):
        finish(cell, state)
        path = cell.folder / "summary.json"
        window = {"taken": rounds, "evaluated": rounds, "rounds": rounds, "rising": ["mta"]}
        write_json(path, {**json.loads(path.read_text()), "window": window})
    assert main(["results"]) == 0
    assert "means of the last 3 to 10 of 3 to 10 rounds." in capsys.readouterr().err
    assert main(["results", "--by", "lr"]) == 0
    said = capsys.readouterr().err
    assert "means of the last 10 of 10 rounds." in said
    assert said.endswith(f"MTA of {cells[0].name}.\n")


def test_a_file_whose_name_says_an_unknown_format_is_refused(cells, capsys, finish):
    finish(cells[0])
    assert main(["results", "--out", "a.json"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--out a.json: its name says no format; allowed are .csv, .md, .tex, .parquet" in said
    assert not Path("a.json").exists()


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("a.csv", "name,defense,"),
        ("a.md", "| name | defense |"),
        ("a.tex", r"\begin{tabular}"),
        ("a.txt", "name  "),
        ("a", "name  "),
    ],
)
def test_the_name_of_the_file_says_the_format(cells, capsys, name, start, finish):
    finish(cells[0])
    assert main(["results", "--out", name]) == 0
    assert Path(name).read_text().startswith(start)
    assert f"Written to {name}" in capsys.readouterr().out


def test_results_of_nothing_say_so(tmp_path, grid, capsys):
    (tmp_path / "runs").mkdir()
    assert main(["results"]) == 0
    shown = capsys.readouterr()
    assert "no runs in runs" in shown.err
    assert shown.out.startswith("name")
    assert main(["results", "--by", "defense", "--format", "md"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_conditions_that_hold_for_nothing_say_so(cells, capsys, finish):
    finish(cells[0])
    assert main(["results", "--where", "mta>0.9"]) == 0
    assert "--where holds for none of the 1 runs in runs" in capsys.readouterr().err


def test_a_percentage_in_a_condition_is_refused_with_the_share(cells, capsys, finish):
    finish(cells[0])
    for word, meant in (("asr<5", "asr<0.05"), ("mta>=90", "mta>=0.9")):
        assert main(["results", "--where", word]) == 2
        said = capsys.readouterr().err
        assert f"{word}: {word[:3]} is a share from 0 to 1; write {meant}." in said
    assert main(["results", "--where", "asr<=1"]) == 0


def test_labels_of_a_study_or_a_grid_are_columns_of_its_runs(grid, tmp_path, capsys, finish):
    """A run of no study has none of them."""
    study = find("configurations").grid
    runs = tmp_path / "runs"
    wanted = {("C3", "drop"): 0.3, ("C8", "drop"): 0.8, ("C3", "median"): 0.5}
    for cell in expand(study, runs / "configurations"):
        key = (cell.labels["configuration"], cell.labels["defense"])
        if cell.labels["seed"] == "1" and key in wanted and cell.labels["rate"] == "5%":
            finish(cell, mta=wanted[key])
    finish(expand(read(Path(grid)), runs / "tiny")[0], mta=0.1)
    assert main(["results", "--where", "configuration=C3"]) == 2
    assert "study's axes are known with --labels STUDY." in " ".join(
        capsys.readouterr().err.split()
    )

    def shown(*words):
        assert main(["results", "--labels", *words, "--format", "csv"]) == 0
        return [*csv.DictReader(io.StringIO(capsys.readouterr().out))]

    found = shown("configurations", "--where", "configuration=C3")
    assert {(row["defense"], row["mta"]) for row in found} == {("drop", "0.3"), ("median", "0.5")}
    by = shown("configurations", "--by", "configuration,defense", "--where", "rate=5%")
    assert {(row["configuration"], row["defense"]): float(row["mta_mean"]) for row in by} == wanted
    named = tmp_path / "named.yaml"
    data = yaml.safe_load(Path(grid).read_text())
    data["axes"] = {"speed": {"slow": {"lr": 0.1}, "fast": {"lr": 0.2}}}
    named.write_text(yaml.safe_dump(data))
    assert [row["mta"] for row in shown(str(named), "--where", "speed=slow")] == ["0.1"]
    data["axes"] = {"speed": {"odd": {"lr": 0.7}}}
    named.write_text(yaml.safe_dump(data))
    assert main(["results", "--labels", str(named)]) == 2
    assert "none of these runs is one of it, as it is now." in " ".join(
        capsys.readouterr().err.split()
    )
    assert main(["results", "--labels", "configuration"]) == 2
    assert "--labels study configuration: is unknown." in capsys.readouterr().err


def test_a_terminal_shows_a_table_without_what_is_for_programs(cells, capsys, monkeypatch, finish):
    finish(cells[0])
    for width, seen in ((80, False), (160, True)):
        monkeypatch.setattr(
            console, "out", Console(force_terminal=True, width=width, no_color=True)
        )
        assert main(["results"]) == 0
        shown = capsys.readouterr().out
        assert "50.0" in shown
        assert "undefend" in shown
        assert (cells[0].name in shown) is seen
        assert cells[0].identity not in shown


FIGURES = {
    "MTA": ("mta", "last10", 0.512),
    "ASR": ("asr", "last10", 1.0),
    "ASR max": ("asr", "max_last10", 0.998),
    "worst ASR": ("consistency", "worst_asr", 0.999),
    "on victims": ("victim_accuracy", "last10", 0.443),
    "DPR of all": ("dpr", "of_all", 0.034),
    "TPR": ("detection", "tpr", 0.501),
    "FPR": ("detection", "fpr", 0.102),
    "seconds": ("seconds", "total", 12345.6),
}


@pytest.mark.parametrize("width", [60, 80, 95, 110, 150])
@pytest.mark.parametrize("words", [[], ["--by", "defense"], ["--by", "defense,attack,seed"]])
def test_a_terminal_shows_a_figure_whole_or_says_that_it_is_left_out(
    cells, capsys, monkeypatch, finish, width, words
):
    for cell in cells:
        finish(cell)
        path = cell.folder / "summary.json"
        summary = json.loads(path.read_text())
        for table, key, value in FIGURES.values():
            summary[table] = {**summary.get(table, {}), key: value}
        write_json(path, summary)
    terminal = Console(force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    assert main(["results", "--where", "lr=0.1", *words]) == 0
    shown = capsys.readouterr()
    [said] = [line for line in shown.err.splitlines() if "no room" in line] or [""]
    left_out = said.removeprefix("Left out, as there is no room: ").split(".")[0].split(", ")
    assert max(map(len, shown.out.splitlines())) <= width
    for title, (_, _, value) in FIGURES.items():
        text = f"{value:.1f}" if title == "seconds" else f"{100 * value:.1f}"
        assert (text in shown.out.split()) is (title not in left_out)
    assert {"MTA", "ASR"}.isdisjoint(left_out)
    assert words or "finished" in shown.out


def test_sql_and_parquet(cells, capsys, finish):
    pytest.importorskip("duckdb")
    for cell in cells:
        finish(cell)
    query = "SELECT lr, count(*) AS n FROM runs GROUP BY lr ORDER BY lr"
    assert main(["results", "--sql", query, "--format", "csv"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "lr,n\n0.1,2\n0.2,2\n"
    assert "means of" not in shown.err
    assert main(["results", "--sql", query, "--out", "x.parquet"]) == 0
    assert Path("x.parquet").read_bytes()[:4] == b"PAR1"
    assert main(["results", "--sql", "SELEC"]) == 2
    assert "drop: --sql: " in capsys.readouterr().err


def test_figures_of_a_query_are_not_folded(cells, capsys, monkeypatch, finish):
    pytest.importorskip("duckdb")
    finish(cells[0])
    monkeypatch.setattr(console, "out", Console(force_terminal=True, width=60, color_system=None))
    query = (
        "SELECT * FROM (VALUES (123456789012345, 'a text', 1.25), (7, repeat('w', 99), NULL))"
        " AS t(many, words, share)"
    )
    assert main(["results", "--sql", query]) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(line for line in lines if "123456789012345" in line.split())
    second = next(line for line in lines if "7" in line.split())
    assert first.index("5 a text") == second.index("7 w")  # both end in one place
    assert first.rstrip().endswith(" 1.25")
    assert sum(line.count("w") for line in lines) == 99 + 1  # and texts are, with their heading


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["results", "nowhere"], "nowhere: is no folder of runs."),
        (["results", ".", "--format", "parquet"], "--format parquet: needs a file, --out FILE."),
        (["results", ".", "--sql", "SELECT 1", "--by", "seed"], "--sql and --by: choose one"),
        (["results", ".", "--by", ","], "--by: names no column."),
        (["results", ".", "--where", "lr"], '--where "lr": is no condition'),
        (["results", ".", "--where", "lr<many"], '--where "lr<many": < needs a number'),
        (["results", ".", "--out", "no/where.csv"], "--out no/where.csv: cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(grid, capsys, words, said):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown


def test_fields_that_no_run_has_are_named_with_their_option(cells, capsys, finish):
    finish(cells[0])
    assert main(["results", "--by", "defence"]) == 2
    assert "drop: --by: defence is a field of none of the runs." in capsys.readouterr().err
    assert main(["results", "--where", "defence=drop"]) == 2
    assert "drop: --where: defence is a field of none of the runs." in capsys.readouterr().err


def test_without_duckdb_the_option_that_needs_it_is_named(cells, capsys, finish, monkeypatch):
    finish(cells[0])
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["results", "--sql", "SELECT 1"]) == 2
    assert "drop: --sql: DuckDB is not installed; `pip install" in capsys.readouterr().err
    assert main(["results", "--out", "x.parquet"]) == 2
    assert "drop: --format parquet: DuckDB is not installed" in capsys.readouterr().err
