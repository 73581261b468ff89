"""Published names of methods in tables and figures."""

import json
from pathlib import Path

import pytest

from entity.attacks import ATTACKS
from entity.cli import main
from entity.defenses import DEFENSES
from entity.report.entries import make_entries
from entity.report.paper_table import TableRequest
from entity.report.paper_table_text import csv, latex, markdown
from entity.report.runs import of_memory
from entity.results.tables import Column, Table
from entity.results.titles import TITLES, titled, with_titles


def test_every_method_has_a_name_that_only_differs_in_how_it_is_written():
    assert {*DEFENSES, *ATTACKS} <= set(TITLES)
    for name, title in TITLES.items():
        spelt = title.lower().replace("+", "plus").replace("3d", "three_d")
        letters = "".join(c for c in spelt if c.isalnum())
        assert letters == "".join(c for c in name if c.isalnum())


def test_words_are_replaced_and_names_of_runs_and_unknown_methods_stay():
    assert titled("min_max, DPR 0.25, flame (1)") == "Min-Max, DPR 0.25, FLAME (1)"
    assert titled("flame-seed1 my_defense") == "flame-seed1 my_defense"
    assert titled("flame, krum", {"flame": "F", "krum": "Krum 2"}) == "F, Krum 2"


def test_only_columns_of_methods_have_them():
    table = Table((Column("name"), Column("defense"), Column("mta", "%")), (("drop", "drop", 0.5),))
    assert with_titles(table).rows == (("drop", "DROP", 0.5),)
    assert with_titles(table, {"drop": "Ours"}).rows == (("drop", "Ours", 0.5),)


def run_of(defense, seed, asr):
    config = {
        "server": {"defense": {"type": defense}},
        "client": {"attack": {"type": "badnets"}},
        "federation": {"rounds": 1},
        "settings": {"seed": seed},
    }
    line = {"round": 1, "mta": 0.9, "asr": asr, "selected": [], "seconds": {}}
    return of_memory(config, [line], {"name": f"{defense}-{seed}", "state": "finished"})


@pytest.mark.parametrize("given", [{}, {"droplet": "DROPlet (ours)"}])
def test_a_report_has_them_and_takes_others(given):
    runs = [run_of(name, seed, 0.1 * seed) for name in ("droplet", "multikrum") for seed in (1, 2)]
    entries = make_entries(runs, given)
    ours = given.get("droplet", "DROPlet")
    assert [entry.group.label for entry in entries[::2]] == [ours, "Multi-Krum"]
    assert [entry.label for entry in entries] == [run.name for run in runs]
    for against in ("multikrum", "Multi-Krum"):
        table = TableRequest(against=against, names=given).table(entries)
        for text in (markdown(table), latex(table, "x")):
            assert ours in text
            assert "Multi-Krum" in text
            assert "multikrum" not in text
        assert "droplet,mta" in csv(table)  # as programs know it


@pytest.fixture
def folder(tmp_path, tables):
    path = tmp_path / "r"
    path.mkdir()
    config = tables({"server.defense": {"type": "trimmed_mean"}})
    (path / "config.json").write_text(json.dumps({**config, "name": "x"}))
    (path / "rounds.jsonl").write_text("")
    return path


def test_documents_of_results_have_them_and_tables_for_programs_do_not(folder, capsys):
    for kind, name in (("md", "Trimmed Mean"), ("latex", "Trimmed Mean"), ("csv", "trimmed_mean")):
        assert main(["results", str(folder), "--format", kind]) == 0
        assert name in capsys.readouterr().out
    assert main(["results", str(folder), "--format", "md", "--names", "trimmed_mean=TM"]) == 0
    assert "| TM |" in capsys.readouterr().out
    assert main(["results", str(folder), "--names", "trimmed_mean"]) == 2
    assert "--names trimmed_mean: allowed is NAME=TITLE" in capsys.readouterr().err
    for words in ([], ["--format", "csv"], ["--out", "x.parquet"]):
        assert main(["results", str(folder), *words, "--names", "trimmed_mean=TM"]) == 2
        assert "it is for md and latex." in " ".join(capsys.readouterr().err.split())
    assert not Path("x.parquet").exists()
    assert main(["report", str(folder), "--out", "x.html", "--names", "=x"]) == 2
    assert not Path("x.html").exists()
