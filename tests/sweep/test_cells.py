"""From a grid to experiments that are checked and named before one of them runs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.config.schema import ConfigError
from entity.config.shipped import find_config
from entity.record.json_files import write_json
from entity.setup import resolve
from entity.sweep import cells
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse
from entity.sweep.plan import SweepOptions, choose_cells

HERE = Path("grid.yaml")


def cells_of(out, **keys):
    return expand(parse(keys, HERE), out)


def refusal_of(**keys):
    with pytest.raises(ConfigError) as refusal:
        cells_of(Path("nowhere"), **keys)
    text = str(refusal.value)
    assert text.startswith("grid grid.yaml: ")
    assert "\n" not in text
    return text.removeprefix("grid grid.yaml: ")


def store_run(cell, folder, state="finished", **summary):
    folder.mkdir(parents=True)
    write_json(folder / "config.json", resolve.to_json(cell.config))
    (folder / "rounds.jsonl").write_text("")
    if state:
        facts = {"state": state, "config_hash": cell.identity, **summary}
        write_json(folder / "summary.json", facts)


def test_a_cell_is_what_the_command_line_would_make_of_it(tables, tmp_path):
    (cell,) = cells_of(
        tmp_path,
        base=tables(),
        axes={"attack": {"dba": {"poison": "dba", "DPR": 0.25}}},
        seeds=[7],
    )
    expected = resolve.experiment(tables(), [("poison", "dba"), ("DPR", "0.25"), ("seed", "7")])
    assert replace(cell.config, name=None) == expected
    assert cell.identity == resolve.identity(expected)
    assert cell.labels == {"seed": "7", "attack": "dba"}
    assert cell.folder == tmp_path / f"{cell.name}-{cell.identity[:8]}"
    assert cell.state == "new"


def test_names_say_what_sets_a_cell_apart(tables, tmp_path):
    found = cells_of(
        tmp_path,
        axes={
            "config": ["mnist5k/drop", "mnist5k/median"],
            "attack": {"none": {"client.attack": None}, "stealthy way": {"DPR": 0.1}},
            "client.lr": [0.1, 0.05],
            "transform": [True, False],
            "rounds": [3],
        },
        seeds=[1, 2],
    )
    names = [cell.name for cell in found]
    assert names[0] == "drop-none-lr0.1-transform-true-seed1"
    assert names[-1] == "median-stealthy-way-lr0.05-transform-false-seed2"
    assert len(set(names)) == len(names) == 32
    (alone,) = cells_of(tmp_path, base="mnist5k/drop")
    assert alone.name == "mnist5k-drop-badnets-seed1"
    named = cells_of(tmp_path, base=tables({}) | {"name": "mine"}, axes={"lr": [0.1, 0.2]})
    assert [cell.name for cell in named] == ["mine-lr0.1-seed1", "mine-lr0.2-seed1"]


def test_configs_of_one_stem_are_named_by_their_folders_too(tmp_path):
    found = cells_of(tmp_path, axes={"config": ["mnist5k/drop", "mnist5k/stealthy/drop"]})
    assert [cell.name for cell in found] == ["mnist5k-drop-seed1", "mnist5k-stealthy-drop-seed1"]


def test_a_name_is_a_folder_whatever_the_labels_are(tmp_path):
    odd = {
        "../../x": {},
        ".": {"lr": 0.2},
        "/": {"lr": 0.3},
        "é\n ": {"lr": 0.4},
        "y" * 300: {"K": 1},
    }
    for cell in cells_of(tmp_path, base="mnist5k/drop", axes={"a": odd}):
        assert cell.folder.parent == tmp_path
        resolve.experiment(resolve.to_json(cell.config))  # which checks the name, too
        assert len(cell.folder.name) < 200


def test_each_defense_brings_its_own_arguments_by_its_config(tmp_path):
    drop, median = cells_of(tmp_path, axes={"config": ["mnist5k/drop", "mnist5k/median"]})
    assert drop.config.server.defense.defense_args.K == 10
    assert median.config.server.defense.type == "median"


def test_a_bundle_may_choose_the_config_and_others_keep_the_base(tmp_path):
    found = cells_of(
        tmp_path,
        base="mnist5k/drop",
        axes={"way": {"plain": {}, "stealthy": {"config": "mnist5k/stealthy/drop", "K": 3}}},
    )
    direct = resolve.read(find_config("mnist5k/stealthy/drop", Path()))
    assert [cell.config.server.defense.defense_args.K for cell in found] == [10, 3]
    assert found[1].config.client.attack == resolve.experiment(direct).client.attack


def test_a_cell_is_one_process_of_one_thread_unless_the_grid_says_otherwise(tables, tmp_path):
    def settings_of(**keys):
        return cells_of(tmp_path, **keys)[0].config.settings

    base = tables({"settings": {}})
    assert (settings_of(base=base).engine, settings_of(base=base).num_threads) == ("inline", 1)
    own = tables({"settings": {"engine": "pool", "num_threads": 3}})
    assert (settings_of(base=own).engine, settings_of(base=own).num_threads) == ("pool", 3)
    by_axis = settings_of(base=base, axes={"engine": ["pool"], "settings.num_threads": [2]})
    assert (by_axis.engine, by_axis.num_threads) == ("pool", 2)


def test_files_are_looked_for_beside_the_grid_then_here_then_among_the_shipped(
    tables, tmp_path, monkeypatch
):
    beside, here = tmp_path / "grids", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "own.json").write_text(json.dumps(tables()))
    monkeypatch.chdir(here)
    assert find_config("own.json", beside) == beside / "own.json"
    (beside / "own.json").unlink()
    assert find_config("own.json", beside) == Path("own.json")
    assert find_config("mnist5k/drop", beside).name == "drop.json"
    for name in ("mnist5k/dorp", "x" * 5000, "a\0b"):
        with pytest.raises(ConfigError, match="neither a file nor a shipped"):
            find_config(name, beside)
    with pytest.raises(ConfigError, match=r"Did you mean mnist5k/drop\?"):
        find_config("mnist5k/dorp", beside)


def test_a_bad_cell_is_named_with_its_file_its_place_and_the_reason():
    assert refusal_of(axes={"lr": [0.1]}) == (
        "cell lr=0.1: base is missing: give one, or an axis that chooses the config."
    )
    said = refusal_of(base="mnist5k/drop", axes={"rounds": [5, 0], "lr": [1, 2]}, seeds=[3])
    assert said.startswith("cell seed=3, rounds=0, lr=1: federation.rounds = 0: allowed is a whole")
    assert said.endswith("(Cells that are refused: 2.)")
    assert "cell DPRR=0.1: DPRR is unknown. Did you mean DPR?" in refusal_of(
        base="mnist5k/drop", axes={"DPRR": [0.1]}
    )
    assert "config mnist5k/dorp: is neither a file nor a shipped" in refusal_of(base="mnist5k/dorp")
    impossible = refusal_of(base="mnist5k/drop", axes={"victim_class": [1, 7]})
    assert impossible.startswith("cell victim_class=7: client.attack.victim_class = 7: is also")


def test_an_unreadable_config_is_refused_like_any_other(tmp_path):
    (tmp_path / "torn.json").write_text("{")
    text = refusal_of(base=str(tmp_path / "torn.json"))
    assert f"config {tmp_path / 'torn.json'}: is not JSON" in text


def test_cells_that_are_one_experiment_are_one_cell(tmp_path):
    found = cells_of(
        tmp_path, base="mnist5k/drop", axes={"defense": {"new": {}, "old": {"lr": 0.05}}}
    )
    assert len(found) == 1  # the config says lr = 0.05, too


def test_a_field_without_effect_is_left_out_of_a_cell_and_refused_where_no_cell_has_it(tmp_path):
    attacks = {"none": {"client.attack": "null"}, "badnets": {}}
    found = cells_of(tmp_path, base="mnist5k/drop", axes={"attack": attacks, "DPR": [0.25, 1]})
    told = [cell.config.client.attack and cell.config.client.attack.DPR for cell in found]
    assert told == [None, 0.25, 1.0]
    assert [cell.name for cell in found] == [
        "none-seed1",  # no DPR in the name of a cell that has none
        "badnets-DPR0.25-seed1",
        "badnets-DPR1-seed1",
    ]
    said = refusal_of(base="mnist5k/drop", axes={"dirichlet_alpha": [0.5, 1]})
    assert said == (
        "axes.dirichlet_alpha: client.dirichlet_alpha = 0.5: does nothing without "
        "client.IID = false; give that, too, or leave this out."
    )
    axes = {"IID": [True, False], "dirichlet_alpha": [0.5, 1]}
    assert len(cells_of(tmp_path, base="mnist5k/drop", axes=axes)) == 3


def test_a_setting_of_one_defense_is_left_out_of_the_others_cells(tmp_path):
    axes = {"defense": {"krum": {"defense.type": "krum"}, "drop": {}}, "K": [5, 10]}
    found = cells_of(tmp_path, base="mnist5k/drop", axes=axes)
    assert [cell.name for cell in found] == ["krum-seed1", "drop-K5-seed1", "drop-K10-seed1"]
    axes["defense"].pop("drop")
    said = refusal_of(base="mnist5k/drop", axes=axes)
    assert said == "axes.K: K belongs to drop, which is not chosen."


# --- what is there already


def test_a_run_is_known_by_its_identity_whatever_it_is_called(tables, tmp_path):
    grid = {"base": tables(), "axes": {"lr": [0.1, 0.2, 0.3, 0.4]}}
    one, two, three, four = cells_of(tmp_path, **grid)
    store_run(one, tmp_path / "else" / "where")
    store_run(two, tmp_path / "b", "running")
    store_run(three, tmp_path / "c", None)
    (tmp_path / "c" / "error.txt").write_text("why")
    found = cells_of(tmp_path, **grid)
    assert [cell.state for cell in found] == ["finished", "interrupted", "failed", "new"]
    assert [cell.folder for cell in found[:3]] == [
        tmp_path / "else" / "where",
        tmp_path / "b",
        tmp_path / "c",
    ]
    assert found[3].folder == four.folder


def test_a_finished_twin_goes_before_an_unfinished_one(tables, tmp_path):
    (cell,) = cells_of(tmp_path, base=tables())
    for name, state in (("a", "running"), ("b", "finished"), ("c", "interrupted")):
        store_run(cell, tmp_path / name, state)
    assert cells_of(tmp_path, base=tables())[0].folder == tmp_path / "b"


def test_a_changed_experiment_is_another_run(tables, tmp_path):
    (cell,) = cells_of(tmp_path, base=tables())
    store_run(cell, cell.folder)
    assert cells_of(tmp_path, base=tables())[0].state == "finished"
    assert cells_of(tmp_path, base=tables({"client.lr": 0.06}))[0].state == "new"


def test_two_identities_that_begin_alike_get_two_folders(tables, tmp_path):
    (cell,) = cells_of(tmp_path, base=tables())
    store_run(cell, cell.folder, config_hash=cell.identity[:8] + "0000")
    (again,) = cells_of(tmp_path, base=tables())
    assert again.state == "new"
    assert again.folder == tmp_path / f"{cell.name}-{cell.identity}"


def test_conditions_see_axes_facts_and_fields(tables, tmp_path):
    (cell,) = cells_of(
        tmp_path, base=tables(), axes={"attack": {"mine": {}}, "server.defense.type": ["median"]}
    )
    (row,) = cell.rows
    assert row["attack"] == "mine"  # the axis, not the type
    assert row["defense"] == "median"
    assert row["client.lr"] == 0.05
    assert row["state"] == "new"


@pytest.mark.parametrize("more", [(), ("rounds=40",), ("state=new",), ("defense=drop",)])
def test_one_more_condition_that_always_holds_chooses_the_same_cells(tmp_path, more):
    """Without an attack the share of poisoned data does nothing: its two cells are one."""
    grid = parse(
        {"base": "mnist5k/drop", "axes": {"attack": [None, "badnets"], "DPR": [0.1, 0.5]}}, HERE
    )
    chosen = choose_cells(grid, SweepOptions(tmp_path, ("DPR=0.5", *more)))
    assert [dict(cell.labels) for cell in chosen] == [
        {"attack": "null", "DPR": "0.5"},
        {"attack": "badnets", "DPR": "0.5"},
    ]
    assert [cell.others for cell in chosen] == [(), ()]
    both = choose_cells(grid, SweepOptions(tmp_path, ("DPR<1", *more)))
    assert [len(cell.every_labels) for cell in both] == [2, 1, 1]


def test_a_condition_names_a_list_as_the_grid_does(tmp_path):
    pixels = [[0, 0], [1, 1]]
    grid = parse({"base": "mnist5k/drop", "axes": {"trigger_pattern": [pixels, "4pixel"]}}, HERE)
    for text in ("[[0, 0], [1, 1]]", "[[0,0],[1,1]]"):
        (cell,) = choose_cells(grid, SweepOptions(tmp_path, (f"trigger_pattern={text}",)))
        assert cell.config.client.attack.trigger_pattern == ((0, 0), (1, 1))


# --- anything at all

VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.lists(st.integers(), max_size=2)
    | st.sampled_from(["drop", "mnist5k/drop", "badnets", "[[", "null"])
)
FIELDS = st.sampled_from(
    ["lr", "K", "config", "client.attack", "attack", "type", "name", "server.defense.type", "x"]
) | st.text(max_size=6)
PLAIN = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.lists(st.floats(0.01, 1), min_size=1, max_size=2, unique=True),
        "K": st.just([-1]) | st.just([5, 10]),
        "client.attack": st.just([None]),
        "config": st.just(["mnist5k/drop"]),
    },
)
"""Axes that a sensible grid has."""


def test_any_grid_has_experiments_or_a_config_error():
    accepted = []

    @given(
        st.dictionaries(FIELDS, st.lists(VALUES, min_size=1, max_size=2), max_size=3) | PLAIN,
        st.none() | st.just("mnist5k/drop") | st.text(max_size=5) | st.dictionaries(FIELDS, VALUES),
    )
    @settings(max_examples=80, deadline=None)
    def accepts(axes, base):
        try:
            grid = parse({"axes": axes, "base": base}, HERE)
            found = expand(grid, Path("nowhere"))
        except ConfigError:
            accepted.append(False)
            return
        accepted.append(True)
        for cell in found:
            again = resolve.experiment(json.loads(json.dumps(resolve.to_json(cell.config))))
            assert again == cell.config
            assert resolve.identity(again) == cell.identity

    accepts()
    assert sum(accepted) > 0.1 * len(accepted)


def test_an_inline_base_may_extend_a_configuration(tmp_path):
    base = {"extends": "mnist5k/drop", "federation": {"rounds": 3}}
    (cell,) = cells_of(tmp_path, base=base)
    (by_name,) = cells_of(tmp_path, base="mnist5k/drop", axes={"rounds": [3]})
    assert cell.identity == by_name.identity
    assert refusal_of(base={"extends": "mnist5k/dorp"}).startswith(
        "cell of the base: base: extends "
    )


def test_each_base_is_read_once(tmp_path, monkeypatch):
    asked = []
    read = resolve.read
    monkeypatch.setattr(
        cells.resolve, "read", lambda path, option: asked.append(path) or read(path, option)
    )
    cells_of(tmp_path, base="mnist5k/drop", axes={"lr": [0.1, 0.2]}, seeds=[1, 2, 3])
    assert len(asked) == 1
