"""Run directories as one table: whole ones, cut short ones, and what is none at all."""

import json
import shutil
import sys
from dataclasses import replace
from statistics import mean, stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entity import experiment
from entity.config.schema import ConfigError
from entity.record.json_files import write_json
from entity.record.lock import locked
from entity.results import duckdb_export, store
from entity.results.filter import parse
from entity.results.store import collect, grouped, pooled, select, table
from entity.results.tables import Column, Table, to_csv, to_latex, to_markdown
from entity.setup import resolve
from entity.sweep.estimate import Pace


@pytest.fixture
def keep(tmp_path, tables):
    """Write a run directory with a made-up summary."""

    def write(name, changes=None, state="finished", **figures):
        data = tables({"server.held_out": 500, **(changes or {})})
        config = experiment.settled(resolve.experiment(data))
        config = replace(config, name=name)
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_json(folder / "config.json", resolve.to_json(config))
        (folder / "rounds.jsonl").write_text("")
        mta, asr = figures.get("mta", 0.9), figures.get("asr", 0.1)
        summary = {
            "name": name,
            "state": state,
            "config_hash": resolve.identity(config),
            "mta": {"final": 0.0, "last10": mta, "max_last10": 1.0},
            "asr": {"final": 0.0, "last10": asr, "max_last10": 0.75},
            "detection": {"tpr": 0.5, "fpr": None},
            "seconds": {"train": 1.0, "total": figures.get("seconds", 10.0)},
        }
        if state:
            write_json(folder / "summary.json", summary)
        return folder

    return write


def test_the_field_dpr_stands_beside_the_share_of_all_samples(keep, tmp_path):
    """Runs that share it show it, too: 4.9 % of all alone would be taken for the field."""
    folders = [keep(name, {"settings.seed": place}) for place, name in enumerate("ab")]
    assert "DPR" not in rows(table(collect([tmp_path])))[0]
    for folder in folders:
        summary = json.loads((folder / "summary.json").read_text())
        (folder / "summary.json").write_text(json.dumps(summary | {"dpr": {"of_all": 0.049}}))
    found = rows(table(collect([tmp_path])))
    assert [(row["DPR"], row["dpr_of_all"]) for row in found] == [(1.0, 0.049)] * 2


DROP = {"server.defense": {"type": "drop"}}
MEDIAN = {"server.defense": {"type": "median"}}


def rows(found):
    names = [column.name for column in found.columns]
    return [dict(zip(names, row, strict=True)) for row in found.rows]


def test_a_real_run_is_a_row_that_says_what_its_summary_says(experiment_of, tmp_path):
    experiment.run(experiment_of, tmp_path / "a")
    summary = json.loads((tmp_path / "a" / "summary.json").read_text())
    (run,) = collect([tmp_path])
    assert run.finished
    (row,) = rows(table([run]))
    assert row == {
        "name": "mnist5k-undefended-badnets-seed1",
        "defense": "undefended",
        "attack": "badnets",
        "seed": 1,
        "DPR": 1.0,
        "mta": summary["mta"]["last10"],
        "asr": summary["asr"]["last10"],
        "asr_max": summary["asr"]["max_last10"],
        "worst_asr": summary["consistency"]["worst_asr"],
        "floor": None,
        "victim_accuracy": summary["victim_accuracy"]["last10"],
        "dpr_of_all": summary["dpr"]["of_all"],
        "tpr": summary["detection"]["tpr"],
        "fpr": summary["detection"]["fpr"],
        "seconds": summary["seconds"]["total"],
        "state": "finished",
        "hash": resolve.identity(experiment.settled(experiment_of)),
        "path": str(tmp_path / "a"),
    }


@pytest.fixture
def experiment_of(tables):
    return resolve.experiment(tables({"federation.rounds": 1, "client.ADR": 0.05}))


def test_runs_are_found_at_any_depth_once_and_in_order(keep, tmp_path):
    for name in ("b", "a/two", "a/one", "a/one/checkpoint/inner"):
        keep(name)
    (tmp_path / "no run").mkdir()
    (tmp_path / "no run" / "config.json").write_text("{}")  # somebody's configuration
    found = collect([tmp_path, tmp_path / "a", tmp_path / "b"])
    assert [run.path for run in found] == [tmp_path / x for x in ("a/one", "a/two", "b")]
    assert [run.path for run in collect([tmp_path / "b"])] == [tmp_path / "b"]
    assert collect([tmp_path / "no run"]) == []
    with pytest.raises(ConfigError, match=r"nowhere: is no folder of runs\."):
        collect([tmp_path / "nowhere"])


def test_the_columns_are_those_in_which_runs_differ(keep, tmp_path):
    keep("a", {"settings.seed": 1, "settings.datasets_path": "x"})
    keep("b", {"settings.seed": 2, "client.lr": 0.2})
    names = [column.name for column in table(collect([tmp_path])).columns]
    assert names == [
        *("name", "defense", "attack", "seed", "lr"),
        *("mta", "asr", "asr_max", "worst_asr", "floor", "victim_accuracy", "dpr_of_all"),
        *("tpr", "fpr", "seconds", "state", "hash", "path"),
    ]


def test_fields_that_come_with_one_defense_alone_are_no_difference(keep, tmp_path):
    keep("a", DROP)
    keep("b", MEDIAN)
    keep("c", {"client.attack": None})
    assert len(table(collect([tmp_path])).columns) == 17
    keep("d", {"server.defense": {"type": "drop", "defense_args": {"K": 3}}})
    found = rows(table(collect([tmp_path])))
    assert [row["K"] for row in found][1:] == [None, None, 3]
    assert found[0]["K"] not in (None, 3)
    assert [row["attack"] for row in found] == ["badnets", "badnets", "none", "badnets"]


def test_a_column_is_called_by_its_last_name_where_no_other_field_is(keep, tmp_path):
    drop = {"server.defense": {"type": "drop", "defense_args": {"batch_size": 32}}}
    keep("a", drop | {"client.batch_size": 8})
    keep("b", drop | {"client.batch_size": 16})
    names = [column.name for column in table(collect([tmp_path])).columns]
    assert "client.batch_size" in names
    assert "batch_size" not in names


def test_a_run_says_in_what_state_it_is(keep, tmp_path):
    for name, state in (("a", "finished"), ("b", "running"), ("c", "interrupted"), ("d", None)):
        keep(name, state=state)
    for name in ("a", "c"):
        (tmp_path / name / "error.txt").write_text("why")
    keep("e")
    (tmp_path / "e" / "config.json").write_text("{torn")
    (tmp_path / "e" / "summary.json").write_bytes(b"\xff")
    runs = collect([tmp_path])
    states = [run.facts["state"] for run in runs]
    assert states == ["finished", "killed", "failed", "started", "unreadable"]
    assert [row["mta"] for row in rows(table(runs))] == [0.9, 0.9, 0.9, None, None]
    assert runs[3].facts["hash"] == runs[2].facts["hash"]  # worked out from the config


@pytest.mark.parametrize("state", ["running", "interrupted", None])
def test_a_run_goes_on_while_a_process_has_its_lock(keep, tmp_path, state):
    """As `drop watch` says; a run that is resumed has its old state until its next round."""
    with locked(keep("a", state=state)):
        (run,) = collect([tmp_path])
        assert run.facts["state"] == "running"
    (run,) = collect([tmp_path])
    assert run.facts["state"] == {"running": "killed", None: "started"}.get(state, state)


@pytest.mark.parametrize(
    "text", ["[]", "3", "null", '{"mta": 3, "seconds": [], "state": 5}', "[" * 9999]
)
def test_odd_summaries_are_rows_without_figures(keep, tmp_path, text):
    folder = keep("a")
    (folder / "summary.json").write_text(text)
    (run,) = collect([tmp_path])
    assert run.facts["mta"] is None
    assert run.facts["state"] == "started"


def test_the_hash_of_a_run_without_a_summary_needs_no_module_of_the_users(keep, tmp_path):
    folder = keep("a", state=None)
    config = json.loads((folder / "config.json").read_text()) | {"model": "of_mine:net"}
    (folder / "config.json").write_text(json.dumps(config))
    (run,) = collect([tmp_path])
    assert run.facts["hash"] == resolve.fingerprint(config)


def test_conditions_are_on_columns_and_on_any_field(keep, tmp_path):
    keep("a", DROP, mta=0.5)
    keep("b", MEDIAN)
    runs = collect([tmp_path])

    def names(*words):
        return [run.facts["name"] for run in select(runs, parse(words))]

    assert names("mta<0.6") == ["a"]
    assert names("defense=median") == ["b"]
    assert names("rounds=2") == ["a", "b"]
    assert names("K=null") == ["b"]
    assert names("state=failed") == []
    with pytest.raises(ConfigError, match="Did you mean defense"):
        names("defence=median")


def test_groups_are_means_and_deviations_over_seeds(keep, tmp_path):
    drops = [0.5, 0.75, 0.875]
    for seed, mta in enumerate(drops):
        keep(f"drop{seed}", DROP | {"settings.seed": seed}, mta=mta)
    keep("median", MEDIAN, asr=None)
    keep("partial", MEDIAN | {"settings.seed": 5}, state="running", mta=0.0)
    first, second = rows(grouped(collect([tmp_path]), ["defense", "attack"]))
    assert (first["defense"], first["attack"], first["n"]) == ("drop", "badnets", 3)
    assert first["mta"].mean == pytest.approx(mean(drops))
    assert first["mta"].sd == pytest.approx(stdev(drops))
    assert first["mta"].n == 3
    assert (second["defense"], second["n"]) == ("median", 1)
    assert second["mta"] == store.Spread(0.9, None, 1, 1)
    assert second["asr"] is None
    assert first["fpr"] is None


def test_a_copy_of_a_run_is_no_other_seed(keep, tmp_path):
    keep("one", DROP | {"settings.seed": 1}, mta=0.5)
    keep("two", DROP | {"settings.seed": 2}, mta=1.0)
    shutil.copytree(tmp_path / "two", tmp_path / "two again")
    (row,) = rows(grouped(collect([tmp_path]), ["defense"]))
    assert (row["n"], row["mta"].mean) == (2, 0.75)


def test_runs_of_one_experiment_with_other_results_count_as_their_mean(keep, tmp_path):
    for name, mta in (("old", 0.9), ("new", 0.7)):
        keep(name, DROP | {"settings.seed": 1}, mta=mta)
    keep("two", DROP | {"settings.seed": 2}, mta=0.8)
    (row,) = rows(grouped(collect([tmp_path]), ["defense"]))
    assert (row["n"], row["mta"].mean) == (2, pytest.approx(0.8))
    assert row["mta"].sd == pytest.approx(0.0)
    assert store.repeated(collect([tmp_path])) == 1
    shutil.copytree(tmp_path / "two", tmp_path / "two again")
    assert store.repeated(collect([tmp_path])) == 1


def test_a_run_behind_a_link_counts_once_and_a_link_upwards_ends(keep, tmp_path):
    kept = keep("one", DROP, mta=0.5)
    there = tmp_path / "runs"
    there.mkdir()
    (there / "linked").symlink_to(kept)
    (there / "again").symlink_to(kept)
    (there / "upwards").symlink_to(there)
    assert [run.facts["mta"] for run in collect([there])] == [0.5]


def test_groups_may_be_by_any_field_and_say_what_they_pool(keep, tmp_path):
    for name, lr, seed in (("a", 0.1, 1), ("b", 0.1, 2), ("c", 0.2, 1)):
        keep(name, {"client.lr": lr, "settings.seed": seed})
    keep("d", MEDIAN)
    runs = collect([tmp_path])
    assert [row["n"] for row in rows(grouped(runs, ["lr", "defense"]))] == [2, 1, 1]
    assert pooled(runs, ["lr", "defense"]) == []
    assert pooled(runs, ["defense"]) == ["client.lr"]
    assert pooled(runs, ["lr", "seed"]) == []  # the median is alone with its rate
    assert pooled(runs, ["seed"]) == ["client.lr", "defense"]
    with pytest.raises(ConfigError, match=r"^defence is a field of none"):
        grouped(runs, ["defence"])


def test_no_runs_make_an_empty_table():
    assert rows(table([])) == []
    assert rows(grouped([], ["defense"])) == []
    assert select([], parse(["K=3"])) == []
    assert to_csv(table([])).startswith("name,defense,")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["server", "defense", "type", "client", "attack", "settings", "seed"])
            | st.sampled_from(["mta", "asr", "last10", "state", "seconds", "total", "name"]),
            inner,
        )
    ),
    max_leaves=8,
)


@given(st.lists(st.tuples(JSON, JSON), max_size=3))
@settings(max_examples=100, deadline=None)
def test_whatever_the_files_hold_there_is_a_table(tmp_path_factory, files):
    folder = tmp_path_factory.mktemp("runs")
    for place, (config, summary) in enumerate(files):
        (folder / str(place)).mkdir()
        (folder / str(place) / "config.json").write_text(json.dumps(config))
        (folder / str(place) / "summary.json").write_text(json.dumps(summary))
    runs = collect([folder])
    assert len(runs) == len(files)
    for found in (table(runs), grouped(runs, ["defense", "seed"])):
        for text in (to_csv(found), to_markdown(found), to_latex(found)):
            assert text.endswith("\n")
    pooled(runs, ["attack"])
    pace = Pace()
    for run in runs:
        pace.add(run)


# --- the extra


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb")


def test_sql_answers_about_the_table(keep, tmp_path, duckdb):
    keep("a", DROP, mta=0.5, asr=None)
    keep("b", MEDIAN, asr=None)
    found = table(collect([tmp_path]))
    answer = duckdb_export.query(
        found, "SELECT defense, avg(mta) AS m, avg(asr) AS a FROM runs GROUP BY 1 ORDER BY 1"
    )
    assert [column.name for column in answer.columns] == ["defense", "m", "a"]
    assert answer.rows == (("drop", 0.5, None), ("median", 0.9, None))
    assert duckdb_export.query(table([]), "SELECT count(*) AS n FROM runs").rows == ((0,),)
    with pytest.raises(ConfigError, match=r"^Binder Error: .*defence"):
        duckdb_export.query(found, "SELECT defence FROM runs")


def test_parquet_holds_what_csv_holds(keep, tmp_path, duckdb):
    keep("it's/a", DROP | {"client.lr": 0.5})
    keep("it's/b", MEDIAN)
    found = table(collect([tmp_path]))
    path = tmp_path / "it's" / "runs.parquet"
    duckdb_export.write_parquet(found, path)
    text = str(path).replace("'", "''")
    back = duckdb.execute(f"SELECT name, lr, mta FROM read_parquet('{text}') ORDER BY 1").fetchall()
    assert back == [("it's/a", 0.5, 0.9), ("it's/b", 0.05, 0.9)]
    assert not path.with_name("runs.parquet.part").exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        duckdb_export.write_parquet(found, tmp_path / "nowhere" / "runs.parquet")


def test_names_that_differ_by_case_alone_are_columns_of_their_own(duckdb):
    odd = Table((Column("K"), Column("k"), Column('a"b')), ((1, "x", True), (2, None, None)))
    assert duckdb_export.query(odd, "SELECT * FROM runs").rows == ((1, "x", True), (2, None, None))


def test_without_duckdb_a_sentence_says_what_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(ConfigError) as refusal:
        duckdb_export.query(table([]), "SELECT 1")
    assert str(refusal.value) == ("DuckDB is not installed; `pip install -e '.[store]'` brings it.")
    with pytest.raises(ConfigError, match=r"^DuckDB is not installed"):
        duckdb_export.write_parquet(table([]), tmp_path / "x.parquet")


def test_a_field_that_does_nothing_tells_no_runs_apart(tmp_path, keep):
    """Two IID runs whose files have other alphas are one experiment, and no non-IID table."""
    keep("a", {"client.dirichlet_alpha": 0.5})
    keep("b", {"client.dirichlet_alpha": 1.0})
    runs = collect([tmp_path])
    assert "dirichlet_alpha" not in [column.name for column in table(runs).columns]
    assert [run.row["client.dirichlet_alpha"] for run in runs] == [None, None]
    assert pooled(runs, ["defense"]) == []

    split = {"client.IID": False, "client.min_samples": 1}
    keep("c", {**split, "client.dirichlet_alpha": 0.5})
    runs = collect([tmp_path])
    names = [column.name for column in table(runs).columns]
    assert "IID" in names
    assert "dirichlet_alpha" not in names  # 0.5 wherever it means anything
    keep("d", {**split, "client.dirichlet_alpha": 0.25})
    found = rows(table(collect([tmp_path])))
    assert [row["dirichlet_alpha"] for row in found] == [None, None, 0.5, 0.25]
    chosen = select(collect([tmp_path]), parse(["dirichlet_alpha=0.5"]))
    assert [run.facts["name"] for run in chosen] == ["c"]
