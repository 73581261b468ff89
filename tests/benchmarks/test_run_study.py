"""The tables of docs/RESULTS.md: columns that older lines do not have, and the floor of a twin."""

import importlib
import sys
from pathlib import Path

import pytest
from plugin_registry import forget

from entity.defenses import DEFENSES

ROOT = Path(__file__).parents[2]
MODULES = ("pages", "studies", "run_study")


@pytest.fixture
def bench(monkeypatch):
    """The modules `run_study` and `studies`."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    run_study, studies = map(importlib.import_module, ("run_study", "studies"))
    yield run_study, studies
    forget()  # the plugin of the study of words
    for name in MODULES:
        sys.modules.pop(name, None)


def line(asr, **more):
    found = {"mta": 0.9, "asr": asr, "asr_max": asr, "tpr": None, "fpr": 0.0, "seconds": 2.0}
    return {**found, **more}


def test_older_lines_have_a_dash_and_a_twin_gives_the_floor(bench):
    run_study, studies = bench
    cell, config = studies.Cell, "mnist5k/undefended"
    cells = (
        cell(("clean",), config, (("participation_strategy", "never"),)),
        cell(("attacked",), config),
        cell(("other",), "mnist5k/median"),
    )
    study = studies.Study("A study", ("run",), cells, seeds=(1, 2))
    lines = {
        (("clean",), 1): line(0.02, asr_worst=0.03),
        (("clean",), 2): line(0.04, asr_worst=0.05),
        (("attacked",), 1): line(0.8, asr_worst=0.97, victim_accuracy=0.96, dpr_of_all=0.0125),
        (("attacked",), 2): line(0.6),  # from before it was recorded
        (("other",), 1): line(0.5),
        (("other",), 2): line(0.5),
    }
    text = run_study.row_table(study, run_study.with_floors(study, lines))
    head, _, clean, attacked, other = [
        [cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()
    ]
    place = head.index("worst ASR %")
    assert head[place + 1] == "floor %"
    assert clean[place : place + 2] == ["5", "-"]
    assert attacked[place : place + 2] == ["97", "3.0 ± 1.4"]
    assert head[place + 2 : place + 4] == ["on victims %", "poisoned of all %"]
    assert attacked[place + 2 : place + 4] == ["96.0", "1.2"]
    assert clean[place + 2 : place + 4] == ["-", "-"]
    assert other[place : place + 2] == ["-", "-"]  # its twin without attack is another one


def test_a_matrix_has_the_worst_asr_only_where_lines_have_it(bench):
    run_study, studies = bench
    cells = (studies.Cell(("median", "BadNets"), "mnist5k/median"),)
    study = studies.Study("A study", ("defense", "attack"), cells, seeds=(1,), matrix=True)
    key = (("median", "BadNets"), 1)
    assert "worst ASR" not in run_study.matrix_table(study, {key: line(0.1)})
    text = run_study.matrix_table(study, {key: line(0.1, asr_worst=0.234)})
    assert text.endswith("| worst ASR % | BadNets |\n| --- | --- |\n| median | 23 |")
    text = run_study.matrix_table(study, {key: line(0.1, dpr_of_all=0.05)})
    assert text.endswith("| poisoned of all % | BadNets |\n| --- | --- |\n| median | 5.0 |")
    assert "on victims" not in text


def test_a_new_line_has_the_accuracy_on_victims_and_what_is_poisoned_of_all(bench, tmp_path):
    run_study, studies = bench
    short = (("rounds", "1"), ("num_epochs", "1"))
    found = run_study.run_one(studies.Cell(("a",), "mnist5k/undefended", short), 1, tmp_path / "a")
    assert 0 <= found["victim_accuracy"] <= 1
    assert found["dpr_of_all"] == pytest.approx(0.05, abs=0.01)  # half of a class of ten
    assert found["revision"] == 1
    assert found["fpr_most"] == 0


def test_who_of_the_honest_was_refused_most_often_for_the_rounds_it_came(bench):
    run_study, _ = bench
    rounds = [
        {"selected": [1, 2, 3], "malicious": [3], "refused": [2, 3]},
        {"selected": [1, 2, 3], "malicious": [3], "refused": [3]},
        {"selected": [1, 3], "malicious": [], "refused": [3]},
    ]
    assert run_study.most_refused(rounds) == 1  # the third, who behaved once
    assert run_study.most_refused(rounds[:2]) == 0.5
    assert run_study.most_refused([{"selected": [1], "malicious": [1], "refused": [1]}]) is None


def test_a_table_is_of_the_whole_seeds_and_says_which_are_missing(bench, tmp_path, monkeypatch):
    run_study, studies = bench
    cells = (studies.Cell(("a",), "mnist5k/median"), studies.Cell(("b",), "mnist5k/krum"))
    study = studies.Study("A study", ("defense",), cells, seeds=(1, 2, 3))
    monkeypatch.setitem(run_study.STUDIES, "main", study)
    monkeypatch.setattr(run_study, "RESULTS", tmp_path / "RESULTS.md")
    monkeypatch.setattr(run_study.experiment, "run", lambda *_, **__: pytest.fail("runs"))
    (tmp_path / "RESULTS.md").write_text("# Results\n")

    def known(cell, seed):
        config = run_study.experiment.settled(run_study.config_of(cell, seed))
        found = line(
            seed / 10, rounds=4, commit="c", config_hash=run_study.resolve.identity(config)
        )
        return {**found, "label": list(cell.label), "seed": seed}

    lines = {(cell.label, seed): known(cell, seed) for cell in cells for seed in (1, 3)}
    lines[("a",), 2] = known(cells[0], 2)
    stale = {**known(cells[1], 2), "config_hash": "of another configuration"}
    run_study.write_lines(tmp_path / "results" / "main.jsonl", study, {**lines, (("b",), 2): stale})
    monkeypatch.setattr("sys.argv", ["run_study.py", "main", "--jobs", "1", "--seeds", "1", "3"])
    assert run_study.main() == 0
    page = (tmp_path / "RESULTS.md").read_text()
    assert "over seeds 1, 3 (to come: 2)" in page
    assert "| a | 90.0 ± 0.0 | 20.0 ± 14.1 |" in page
    assert len(run_study.read_lines(tmp_path / "results" / "main.jsonl")) == 6


def test_the_text_study_has_every_defense_that_takes_any_samples_and_a_line_of_each(bench):
    run_study, studies = bench
    study = studies.STUDIES["text"]
    made_up = {name for name, d in DEFENSES.items() if d.needs(d.hyperparameters()).images}
    configs = [run_study.config_of(cell, study.seeds[0]) for cell in study.cells]
    assert {config.dataset for config in configs} == {"books"}
    assert {config.server.defense.type for config in configs} == set(DEFENSES) - made_up
    lines = run_study.read_lines(ROOT / "docs" / "results" / "text.jsonl")
    for cell, config in zip(study.cells, configs, strict=True):
        identity = run_study.resolve.identity(run_study.experiment.settled(config))
        assert lines[cell.label, study.seeds[0]]["config_hash"] == identity


def test_seeds_that_a_study_does_not_have_are_refused(bench, monkeypatch, capsys):
    run_study, _ = bench
    monkeypatch.setattr("sys.argv", ["run_study.py", "main", "--seeds", "101", "7"])
    with pytest.raises(SystemExit, match="2"):
        run_study.main()
    assert "--seeds 7: main has 101, 102," in capsys.readouterr().err


def test_a_setting_that_came_later_changes_no_experiment_at_its_default(bench):
    """Of a plugin's settings nobody knows the defaults, so that each would count."""
    run_study, studies = bench
    cells = {cell.label: cell for cell in studies.STUDIES["looks"].cells}
    stroke = "in sight, trigger a stroke, Dirichlet 0.5"
    configs = [
        run_study.experiment.settled(run_study.config_of(cells[stroke, variant], 341))
        for variant in ("as shipped", "each part by itself")
    ]
    assert len({run_study.experiment_of(config) for config in configs}) == 2
    tables = run_study.resolve.to_json(configs[0])
    assert tables["server"]["defense"]["defense_args"].pop("effect_both") == 2.0
    expected = run_study.resolve.fingerprint(tables, code=False)
    assert run_study.experiment_of(configs[0]) == expected
