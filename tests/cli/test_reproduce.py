"""`drop reproduce`: studies are grids with expectations, and the verdict is about the means."""

import json
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.cli import console, main, reproduce
from entity.config.schema import ConfigError
from entity.experiment import settled
from entity.record.json_files import write_json
from entity.results.store import read_row
from entity.results.tables import Spread
from entity.setup import resolve
from entity.sweep import study
from entity.sweep.cells import expand
from entity.sweep.published import Figure
from entity.sweep.runner import Failure
from entity.sweep.study import Band, find, load
from entity.sweep.verdict_table import verdict_table
from entity.sweep.verdicts import Outcome, judge

PAPER = (
    *("table-3-cifar10", "table-3-cinic10", "table-3-emnist"),
    *("table-4-cifar10", "table-4-cinic10", "table-4-emnist"),
    "table-5-cifar10",
    *("table-6-cifar10", "table-6-cinic10", "table-6-emnist"),
    *("table-7-cifar10", "table-7-emnist"),
)

SAYS = {
    "title": "A tiny study",
    "takes": "no time",
    "source": "made up",
    "expect": [
        {"cells": {"defense": "undefended"}, "mta": [90, 100], "asr": [80, 100]},
        {"cells": {"defense": ["median"]}, "asr": [0, 5]},
    ],
}
AXES = {
    "defense": {
        "undefended": {"server.defense.type": "undefended"},
        "median": {"server.defense.type": "median"},
        "krum": {"server.defense.type": "krum"},
    }
}


@pytest.fixture
def tiny(tmp_path, tables, monkeypatch):
    """A folder of studies with one in it; returns a way to change it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(study, "_folder", lambda: tmp_path / "studies")
    (tmp_path / "studies").mkdir()
    base = tables({"federation.size": 8, "federation.round_size": 6})

    def write(**keys):
        data = {"study": SAYS, "base": base, "axes": AXES, "seeds": [1, 2], **keys}
        path = tmp_path / "studies/tiny.yaml"
        path.write_text(yaml.safe_dump(data, sort_keys=False))
        return path

    write()
    return write


@pytest.fixture
def results(monkeypatch):
    """Let runs come to given (MTA, ASR) by defense, in seed 1 and 2, instead of training."""
    given = {
        "undefended": [(0.95, 0.7), (0.97, 0.94)],
        "median": [(0.96, 0.0), (0.96, 0.1)],
        "krum": [(0.5, 0.5), (0.6, 0.5)],
    }
    asked = []

    def run_cells(cells, place, watch, *, retry):
        failures = []
        for cell in cells:
            asked.append(cell.name)
            found = given[cell.config.server.defense.type][cell.config.settings.seed - 1]
            if found is None:
                failures.append(Failure(cell, "odd"))
                continue
            cell.folder.mkdir(parents=True)
            write_json(cell.folder / "config.json", resolve.to_json(cell.config))
            summary = {
                "state": "finished",
                "config_hash": cell.identity,
                "mta": {"last10": found[0]},
                "asr": {"last10": found[1]},
                "consistency": {"worst_asr": found[2] if len(found) > 2 else None},
                "victim_accuracy": {"last10": found[3] if len(found) > 3 else None},
                "dpr": {"of_all": found[4] if len(found) > 4 else None},
                "seconds": {"total": 1.0},
            }
            write_json(cell.folder / "summary.json", summary)
            watch.finished(replace(cell, done=read_row(cell.folder)))
        return failures

    monkeypatch.setattr("entity.api.sweep.run_cells", run_cells)
    return given, asked


def test_means_over_seeds_are_judged_and_the_exit_code_says_whether_all_is_well(
    tiny, results, capsys
):
    given, asked = results
    assert main(["reproduce", "tiny", "--markdown", "t.md"]) == 0
    shown = capsys.readouterr().out
    version = reproduce.__version__
    # One seed of each is outside of its range; the means (82 %, 5 %) are inside.
    assert Path("t.md").read_text().splitlines() == [
        "## A tiny study",
        "",
        "| defense | n | MTA % | expected | ASR % | expected | verdict |",
        "| --- | --- | ---: | --- | ---: | --- | --- |",
        "| undefended | 2 | 96.0 ± 1.4 | ≥ 90 | 82.0 ± 17.0 | ≥ 80 | reached |",
        "| median | 2 | 96.0 ± 0.0 | - | 5.0 ± 7.1 | ≤ 5 | reached |",
        "| krum | 2 | 55.0 ± 7.1 | - | 50.0 ± 0.0 | - | no figure |",
        "",
        "Mean ± standard deviation over the seeds; a run's MTA and ASR are means of its last 10 "
        "evaluated rounds, or as many as there are. 2 of 2 cells reached what is expected "
        "(made up). No figure in 1 of 3 cells: "
        f"no published figure known here. `drop reproduce tiny` of drop-fl `{version}`.",
    ]
    assert max(map(len, shown.splitlines())) <= 80
    assert "2 of 2 cells reached what is expected" in shown
    assert len(asked) == 6
    given["median"] = None  # nothing is run again
    assert main(["reproduce", "tiny"]) == 0
    assert len(asked) == 6


@pytest.mark.parametrize(
    ("defense", "seeds", "verdict"),
    [
        ("undefended", [(0.89, 0.9), (0.9, 0.9)], "missed"),
        ("undefended", [(0.95, 0.7), (0.95, 0.89)], "missed"),
        ("undefended", [(0.95, None), (0.95, None)], "missed"),
        ("median", [(0.1, 0.05), (0.1, 0.06)], "missed"),
        ("median", [(0.9, 0.0), None], "unfinished"),
        ("krum", [None, (0.9, 0.0)], "unfinished"),
    ],
)
def test_what_is_missed_or_unfinished_is_said_and_is_exit_code_1(
    tiny, results, capsys, defense, seeds, verdict
):
    results[0][defense] = seeds
    assert main(["reproduce", "tiny"]) == 1
    row = next(x for x in capsys.readouterr().out.splitlines() if x.strip().startswith(defense))
    assert row.split()[-1] == verdict


def test_where_the_attack_does_not_work_undefended_a_cell_counts_for_nobody(tiny, results, capsys):
    """Seed 1 is void, seed 2 not: its values alone are judged. No attack is no void cell."""
    given, _ = results
    tiny(
        axes={**AXES, "rate": {"low": {"DPR": 0.5}, "none": {"participation_strategy": "never"}}},
        study={
            **SAYS,
            "void": {"axis": "defense", "label": "undefended", "below": 50},
            "expect": [{"cells": {"defense": ["median"], "rate": "low"}, "worst_asr": [0, 5]}],
        },
    )
    given["undefended"] = [(0.9, 0.4, 0.499), (0.9, 0.4, 0.5)]
    given["median"] = [(0.9, 0.9, 0.95), (0.9, 0.01, 0.04)]
    given["krum"] = [(0.9, 0.2, 0.3), (0.9, 0.2, 0.3)]
    assert main(["reproduce", "tiny", "--markdown", "t.md"]) == 0
    head, _, *rows = [x for x in Path("t.md").read_text().splitlines() if x.startswith("|")]
    assert head.startswith("| defense | rate | n | MTA % | ASR % | worst ASR % | expected | floor")
    (low,) = [row for row in rows if "| median | low |" in row]
    assert low == "| median | low | 1 | 90.0 | 1.0 | 4.0 | ≤ 5 | 1.0 | reached |"
    (none,) = [row for row in rows if "| median | none |" in row]
    assert none.startswith("| median | none | 2 |")
    given["median"][1] = (0.9, 0.01, 0.051)
    assert main(["reproduce", "tiny", "--out", "other"]) == 1
    shown = capsys.readouterr().out
    assert "median" in shown
    assert max(map(len, shown.splitlines())) <= 80
    given["undefended"][1] = (0.9, 0.4, 0.49)
    assert main(["reproduce", "tiny", "--out", "third", "--markdown", "t.md"]) == 0
    text = Path("t.md").read_text()
    assert text.count("| void |") == 3
    assert "Void are 3 of 6 cells, which count for nobody: where defense is undefended the" in text


def test_where_nobody_knows_whether_the_attack_works_nothing_is_reached(tiny, results, capsys):
    given, _ = results
    tiny(study={**VOID, "expect": [{"cells": {"defense": "median"}, "worst_asr": [0, 5]}]})
    given["median"] = [(0.9, 0.0, 0.0)] * 2
    only = ["--where", "defense=median", "--out", "out", "--markdown", "t.md"]
    assert main(["reproduce", "tiny", *only]) == 1
    text = Path("t.md").read_text()
    assert text.count("| unknown |") == 1
    assert "Unknown are 1 of 1 cells: whether the attack works there where defense is un" in text
    assert "reached what is expected" not in text
    given["undefended"] = [(0.9, 0.9, 0.9)] * 2
    assert main(["reproduce", "tiny", "--where", "defense=undefended", "--out", "out"]) == 0
    assert main(["reproduce", "tiny", *only]) == 0
    assert Path("t.md").read_text().count("| reached |") == 1


def test_where_an_attack_was_expected_to_work_undefended_and_fails_that_is_missed(tiny, results):
    """As docs/STUDY.md counts it; the defended cells are void."""
    given, _ = results
    expected = {"cells": {"defense": "undefended"}, "worst_asr": [50, 100]}
    tiny(study={**VOID, "expect": [expected]})
    given["undefended"] = [(0.9, 0.4, 0.4), (0.9, 0.4, 0.3)]
    assert main(["reproduce", "tiny", "--markdown", "t.md"]) == 1
    text = Path("t.md").read_text()
    assert "| undefended | 2 | 90.0 ± 0.0 | 40.0 ± 0.0 | 40.0 | ≥ 50 | missed |" in text.replace(
        " - |", ""
    )
    assert text.count("| void |") == 2
    assert "Void are 2 of 3 cells" in text


def test_the_worst_asr_can_be_of_the_rounds_with_any_accuracy(tiny, results, capsys):
    """By hand: MTA 80 and 96 % with ASR 40 and 2 %."""
    given, _ = results
    given["median"] = [(0.96, 0.02, 0.02)] * 2
    expected = {"cells": {"defense": "median"}, "worst_asr": [0, 5]}
    tiny(study={**SAYS, "expect": [expected]})
    only = ["reproduce", "tiny", "--where", "defense=median", "--markdown", "t.md"]
    assert main(only) == 0
    for folder in Path("runs/tiny").iterdir():
        rounds = ({"mta": 0.8, "asr": 0.4}, {"mta": 0.96, "asr": 0.02})
        lines = [json.dumps({"round": n, **each}) for n, each in enumerate(rounds, 1)]
        (folder / "rounds.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert main([*only, "--acceptable", "0.9"]) == 0
    assert main([*only, "--acceptable", "0.75"]) == 1
    text = Path("t.md").read_text()
    assert "| 40.0 | ≤ 5 | missed |" in text
    assert "whose MTA is at least 75 %." in text
    assert "--acceptable 0.75` of drop-fl" in text
    assert main([*only, "--acceptable", "0.75", "--skip-void"]) == 2


def test_a_study_shows_both_rates_and_the_accuracy_on_the_victims(tiny, results):
    given, _ = results
    given["median"] = [(0.96, 0.0, 0.1, 0.8, 0.049), (0.96, 0.0, 0.1, 0.9, 0.051)]
    assert main(["reproduce", "tiny", "--where", "defense=median", "--markdown", "t.md"]) == 0
    head, _, row = [x for x in Path("t.md").read_text().splitlines() if x.startswith("|")]
    assert "| worst ASR % | on victims % | DPR of all % | verdict |" in head
    assert "| 10.0 | 85.0 | 5.0 | reached |" in row


VOID = {**SAYS, "void": {"axis": "defense", "label": "undefended", "below": 50}, "expect": []}


def test_void_runs_can_be_left_out_and_their_twins_are_run_first(tiny, results, capsys):
    given, asked = results
    tiny(study=VOID)
    given["undefended"] = [(0.9, 0.4, 0.4), (0.9, 0.9, 0.9)]
    assert main(["reproduce", "tiny", "--skip-void", "--out", "out"]) == 0
    assert asked[:2] == ["undefended-seed1", "undefended-seed2"]
    assert sorted(asked[2:]) == ["krum-seed2", "median-seed2"]
    shown = capsys.readouterr()
    assert "2 runs left out: the attack does not work there" in " ".join(shown.err.split())
    asked.clear()
    assert main(["reproduce", "tiny", "--skip-void", "--out", "out"]) == 0
    assert asked == []
    assert main(["reproduce", "tiny", "--out", "out", "--quiet"]) == 0
    assert len(asked) == 2


def test_a_few_cells_are_judged_by_their_twins_too(tiny, results, capsys):
    given, asked = results
    tiny(study=VOID)
    given["undefended"] = [(0.9, 0.4, 0.4), (0.9, 0.9, 0.9)]
    only = ["reproduce", "tiny", "--out", "out", "--where", "defense=krum"]
    assert main([*only, "--skip-void"]) == 0
    assert asked == ["undefended-seed1", "undefended-seed2", "krum-seed2"]
    assert main([*only, "--markdown", "t.md"]) == 0
    (krum,) = [row for row in Path("t.md").read_text().splitlines() if row.startswith("| krum")]
    assert krum.startswith("| krum | 1 |")  # seed 1 is void, though its twin was not asked for


def test_a_dry_run_shows_what_would_be_run_without_the_void_ones(tiny, results, capsys):
    given, asked = results
    tiny(study=VOID)
    given["undefended"] = [(0.9, 0.4, 0.4), (0.9, 0.9, 0.9)]
    command = ["reproduce", "tiny", "--out", "out", "--skip-void", "--where", "defense=krum"]

    def shown():
        assert main([*command, "--dry-run"]) == 0
        lines = capsys.readouterr().out.splitlines()
        return [line.split("out/")[-1].rsplit("-", 1)[0] for line in lines if "out/" in line]

    assert shown() == ["undefended-seed1", "undefended-seed2", "krum-seed1", "krum-seed2"]
    assert asked == []
    assert main(command) == 0
    capsys.readouterr()
    assert shown() == ["undefended-seed1", "undefended-seed2", "krum-seed2"]


def test_a_cell_is_judged_where_its_axis_does_nothing_undefended(tiny, results):
    """Both values of f come to one experiment where nobody defends: it judges the cells of both."""
    given, asked = results
    few = {name: AXES["defense"][name] for name in ("undefended", "krum")}
    tiny(axes={"defense": few, "f": {"none": {"f": 0}, "one": {"f": 1}}}, study=VOID)
    given["undefended"] = [(0.9, 0.4, 0.4), (0.9, 0.9, 0.9)]
    assert main(["reproduce", "tiny", "--skip-void", "--out", "out", "--markdown", "t.md"]) == 0
    assert len(asked) == 4
    assert {name.rsplit("-", 1)[-1] for name in asked[2:]} == {"seed2"}
    rows = Path("t.md").read_text().splitlines()
    assert len([row for row in rows if row.startswith("| krum |") and "| 1 |" in row]) == 2


def test_a_study_that_does_not_say_what_is_void_has_nothing_to_leave_out(tiny, results, capsys):
    assert main(["reproduce", "tiny", "--skip-void"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--skip-void: tiny does not say which of its cells are void." in said


@pytest.mark.parametrize("width", [80, 100, 110, 120, 200])
@pytest.mark.parametrize("name", study.names())
def test_no_figure_and_no_verdict_is_cut_whatever_the_width(monkeypatch, name, width):
    """Of every shipped study, with the longest labels of each axis and two-digit figures."""
    chosen = study.find(name)
    longest = {
        axis.name: max((value.label for value in axis.values), key=len) for axis in chosen.grid.axes
    }
    figures = {"mta": Figure(0.7225), "asr": Figure(0.9725)}
    spread = Spread(0.9625, 0.0151, 3)
    outcome = Outcome(
        tuple(longest[name] for name in chosen.axes), 3, 3, spread, spread,
        study.Expectation({}, Band(0.9, 1.0), None),
        worst_asr=0.9701, floor=0.0312, victim_accuracy=0.8842, dpr_of_all=0.0125,
        figures=figures if chosen.published else {}, agrees=False,
    )  # fmt: skip
    missing = replace(outcome, finished=2)
    monkeypatch.setattr(console.out, "_width", width, raising=False)
    with console.out.capture() as shown:
        console.out.print(reproduce._screen(chosen, [outcome, missing]))
    text = shown.get()
    assert max(map(len, text.splitlines())) <= width
    verdict = "missed" if chosen.published else "reached"
    assert all(word in text for word in (verdict, "unfinished", "96.2 ± 1.5", "verdict"))


def test_labels_that_all_rows_have_are_said_once_where_there_is_little_room(monkeypatch):
    chosen = study.find("configurations")
    spread = Spread(0.9625, 0.0151, 3)
    outcomes = [
        Outcome(
            (configuration, "5%", "40%", "drop_plus"), 3, 3, spread, spread,
            study.Expectation({}, Band(0.9, 1.0), None), worst_asr=0.97, victim_accuracy=0.88,
        )
        for configuration in ("C1", "C10")
    ]  # fmt: skip
    for width, said in ((80, "rate 5%, mcr 40%, defense drop_plus\n"), (200, "")):
        monkeypatch.setattr(console.out, "_width", width, raising=False)
        with console.out.capture() as shown:
            console.out.print(reproduce._screen(chosen, outcomes))
        lines = [line.rstrip() + "\n" for line in shown.get().splitlines()]
        assert (lines[1] == said) == bool(said)
        assert ("drop_plus" in "".join(lines[2:])) == (not said)
        assert all(any(line.startswith(each) for line in lines) for each in ("C1 ", "C10 "))


def test_a_part_is_judged_as_a_part(tiny, results, capsys):
    given, asked = results
    given["krum"] = [None, None]
    assert main(["reproduce", "tiny", "--where", "defense=median", "seed=2"]) == 1  # 10 % > 5 %
    assert asked == ["median-seed2"]
    assert main(["reproduce", "tiny", "--where", "defense=median,undefended"]) == 0
    assert main(["reproduce", "tiny", "--where", "defense=bulyan"]) == 2
    assert "defense=bulyan: is no value of the axis defense" in capsys.readouterr().err


def test_a_dry_run_runs_nothing(tiny, results, capsys):
    assert main(["reproduce", "tiny", "--dry-run"]) == 0
    assert "tiny: 6 runs: 6 new" in capsys.readouterr().out
    assert results[1] == []
    assert not Path("runs").exists()


@pytest.mark.slow
def test_a_real_study_runs_its_cells_and_resumes(tiny, capsys):
    tiny(
        axes={"defense": {"undefended": {"ADR": 0.05}}},
        study={**SAYS, "expect": [{"cells": {"defense": "undefended"}, "mta": [0, 100]}]},
    )
    assert main(["reproduce", "tiny", "--jobs", "2", "--out", "r"]) == 0
    first = capsys.readouterr()
    assert "1 of 1 cells reached what is expected" in first.out
    finals = [json.loads(p.read_text())["mta"]["last10"] for p in Path("r").glob("*/summary.json")]
    assert len(finals) == 2
    assert f"{50 * sum(finals):.1f} ±" in first.out
    assert main(["reproduce", "tiny", "--out", "r"]) == 0
    again = capsys.readouterr()
    assert "tiny: 2 runs: 2 finished" in again.err
    assert again.out == first.out


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (None, "study is missing"),
        ({"title": "x"}, "study.takes is missing"),
        ({**SAYS, "hour": 1}, "study.hour is unknown"),
        ({**SAYS, "hours": -1}, "study.hours = -1"),
        ({**SAYS, "rows": ["defence"]}, "study.rows: axis defence is unknown"),
        ({**SAYS, "expect": [{"cells": {}, "mta": [0, 1]}]}, "{} would mean every cell"),
        ({**SAYS, "rows": ["defense"] * 2}, "study.rows: defense comes twice."),
        (
            {**SAYS, "expect": [{"cells": {"seed": 1}}]},
            "study.expect: needs mta, asr or worst_asr: what is expected of its cells.",
        ),
        (
            {**SAYS, "expect": [{"cells": {"seed": []}, "mta": [0, 1]}]},
            "study.expect.cells.seed = []: means no cell",
        ),
        ({**SAYS, "expect": [{"cells": {"x": 1}}]}, "study.expect.cells: axis x is unknown"),
        (
            {**SAYS, "expect": [{"cells": {"defense": "mediam"}}]},
            "study.expect.cells.defense = mediam is unknown",
        ),
        ({**SAYS, "expect": [{"cells": {"seed": 1}, "mta": [5, 4]}]}, "study.expect.mta = [5.0"),
        ({**SAYS, "expect": [{"cells": {"seed": 1}, "asr": [1]}]}, "[lowest, highest]"),
        ({**SAYS, "void": {"axis": "defense", "label": "none", "below": 50}}, "study.void.defense"),
        ({**SAYS, "void": {"axis": "x", "label": "a", "below": 50}}, "study.void: axis x is unkno"),
        ({**SAYS, "void": {"axis": "defense", "label": "krum", "below": 101}}, "below = 101"),
        ({**SAYS, "expect": [{"cells": {"seed": 1}, "asr": [0, 101]}]}, "101"),
        (
            {**SAYS, "expect": [*SAYS["expect"], {"cells": {"seed": 2}}]},
            "cell seed=2, defense=undefended is named more than once",
        ),
    ],
)
def test_what_is_no_study_is_one_sentence(tiny, capsys, says, words):
    path = tiny(study=says)
    with pytest.raises(ConfigError) as refusal:
        load(path)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith(f"grid {path}: ")
    assert main(["reproduce", "tiny"]) == 2


def test_unknown_studies_and_files_that_cannot_be_written(tiny, capsys):
    assert main(["reproduce", "tinny"]) == 2
    assert capsys.readouterr().err == "drop: study tinny: is unknown. Did you mean tiny?\n"
    assert main(["reproduce", "tiny", "--markdown", "none/t.md"]) == 2
    assert "none/t.md: there is no folder for it." in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("option", "named"),
    [
        (["--skip-void"], "--skip-void"),
        (["--no-retry"], "--no-retry"),
        (["--where", "seed=1"], "--where"),
        (["--data_root", "d"], "--data_root"),
        (["--markdown", "t.md"], "--markdown"),
    ],
)
def test_an_option_about_one_study_needs_its_name(tiny, capsys, option, named):
    assert main(["reproduce", *option]) == 2
    assert f"{named}: needs the NAME of a study" in capsys.readouterr().err


def test_a_dry_run_has_no_table_to_write(tiny, tmp_path, capsys):
    assert main(["reproduce", "tiny", "--dry-run", "--markdown", str(tmp_path / "t.md")]) == 0
    said = capsys.readouterr()
    assert "t.md is not written: nothing was run" in said.err
    assert "The study says of itself: " in said.out
    assert not (tmp_path / "t.md").exists()


def test_the_list_has_every_shipped_study_in_80_columns(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console.out, "_width", 80, raising=False)
    assert main(["reproduce"]) == 0
    shown = capsys.readouterr().out
    first = ["quick", "durability", "laptop", "budget", "configurations", "configurations-cifar10"]
    first += ["rivals"]
    first += ["paper-cifar10", "paper-cinic10", "paper-emnist"]
    assert study.names()[:10] == first
    assert study.names()[10:] == [f"paper/{name}" for name in PAPER]
    for name, runs in (("quick", 24), ("laptop", 12), ("paper-emnist", 30)):
        (row,) = [x for x in shown.splitlines() if x.strip().startswith(f"{name} ")]
        assert str(runs) in row.split()
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("dataset", ["cifar10", "emnist", "cinic10"])
def test_paper_studies_are_the_shipped_configs_and_claim_no_figure(dataset, tmp_path):
    chosen = find(f"paper-{dataset}")
    cells = expand(chosen.grid, tmp_path)
    for cell in cells:
        defense = cell.labels["defense"]
        path = Path(study.__file__).parents[1] / "configs" / dataset / f"{defense}.json"
        fields = [("seed", str(cell.config.settings.seed)), ("engine", "inline")]
        shipped = resolve.experiment(resolve.read(path), [*fields, ("num_threads", "1")])
        assert cell.identity == resolve.identity(settled(shipped))
    assert {outcome.verdict for outcome in judge(chosen, cells)} == {"unfinished"}
    assert not chosen.expectations
    assert all(row[-3] is None for row in verdict_table(chosen, judge(chosen, cells)).rows)


def test_the_laptop_study_is_that_of_the_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setenv("DROP_DATA", str(tmp_path))
    images = pytest.importorskip("PIL.Image")
    for index, (part, name) in enumerate(product(("train", "test"), map(str, range(10)))):
        folder = tmp_path / "cifar10-folder" / part / f"class{name}"
        folder.mkdir(parents=True)
        images.new("RGB", (32, 32), (index, 0, 0)).save(folder / "0.png")
    monkeypatch.syspath_prepend(str(Path(study.__file__).parents[2] / "benchmarks"))
    studies = pytest.importorskip("studies")
    expected = {
        resolve.identity(
            settled(
                resolve.experiment(
                    resolve.read(studies.CONFIGS / f"{cell.config}.json"),
                    [*cell.overrides, ("seed", str(seed)), ("num_threads", "1")],
                )
            )
        )
        for name in ("mnist", "cifar10")
        for cell in studies.STUDIES[name].cells
        for seed in studies.STUDIES[name].seeds
    }
    sys.modules.pop("studies", None)
    assert {cell.identity for cell in expand(find("laptop").grid, tmp_path)} == expected


def test_the_mnist_half_of_the_laptop_study_needs_no_cifar10(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "laptop", "--dry-run"]) == 2
    assert "cifar10-folder" in capsys.readouterr().err
    assert main(["reproduce", "laptop", "--dry-run", "--where", "data=mnist"]) == 0
    assert "laptop: 6 runs: 6 new" in capsys.readouterr().out


def test_a_data_root_goes_before_the_environment_and_missing_data_is_one_sentence(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DROP_DATA", str(tmp_path / "elsewhere"))
    words = ["reproduce", "configurations-cifar10", "--where", "configuration=C4"]
    assert main([*words, "--data_root", str(tmp_path / "mine")]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    (line,) = said.err.strip().splitlines()
    assert str(tmp_path / "mine" / "cifar10-folder") in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("value", "inside"), [(0.5, True), (0.6, True), (0.55, True), (0.49, False), (0.61, False)]
)
def test_the_ends_of_a_range_belong_to_it(value, inside):
    assert (value in Band(0.5, 0.6)) is inside


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 99)
    | st.floats(allow_nan=True)
    | st.text("ab0 é\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=5,
)
_KEYS = st.sampled_from(["title", "takes", "hours", "source", "rows", "expect", "odd"])
_CELLS = st.dictionaries(st.sampled_from(["defense", "seed", "x"]), _JSON, max_size=2)
_EXPECTED = st.dictionaries(st.sampled_from(["cells", "mta", "asr"]), _JSON | _CELLS)


@settings(max_examples=150, deadline=None)
@given(
    base=st.sampled_from([{}, SAYS]),
    says=st.dictionaries(_KEYS, _JSON | st.lists(_EXPECTED, max_size=2)) | _JSON,
)
def test_nothing_that_stands_under_study_gives_a_traceback(tmp_path_factory, base, says):
    if isinstance(says, dict):
        says = {**base, **says}
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.json"
    path.write_text(json.dumps({"study": says, "axes": AXES, "seeds": [1, 2]}))
    try:
        found = load(path)
    except ConfigError as error:
        refusal = str(error)
    else:
        refusal = ""
        assert (found.axes, found.title) == (("defense",), says["title"])
    assert "\n" not in refusal


def test_a_papers_table_stands_beside_ours_with_the_floor_of_the_twin(tiny, results, capsys):
    """The clean cell's ASR is the floor of the attacked one, by the folder and no second run."""
    given, _ = results
    tiny(
        axes={
            "defense": {"undefended": {"server.defense.type": "undefended"}},
            "rate": {"none": {"participation_strategy": "never"}, "1.25%": {"DPR": 1}},
        },
        study={
            "title": "A table",
            "takes": "no time",
            "source": "table I",
            "published": {
                "tolerance": {"mta": 3, "asr": 10, "low_asr": 5},
                "rows": ["defense"],
                "columns": "rate",
                "mta": {"undefended": [95, 96]},
                "asr": {"undefended": [None, 85]},
            },
            "notes": ["A note."],
        },
        seeds=[1],
    )
    given["undefended"] = [(0.95, 0.03)]
    assert main(["reproduce", "tiny", "--where", "rate=none"]) == 0
    given["undefended"] = [(0.95, 0.9)]
    assert main(["reproduce", "tiny", "--markdown", "t.md"]) == 0
    shown = capsys.readouterr()
    assert "| none | 1 | 95.0 | 95.00 | +0.0 | 3.0 | - | - | - | - |" in (
        text := Path("t.md").read_text()
    )
    assert "| 1.25% | 1 | 95.0 | 96.00 | -1.0 | 90.0 | 85.00 | +5.0 | - | 3.0 |" in text
    assert text.count("| reached |") == 2
    assert "A note." in text
    assert "The floor is the ASR of the same run without attack." in text
    assert "core minutes: guessed from seconds an image on one core" in " ".join(shown.err.split())
    assert max(map(len, shown.out.splitlines())) <= 80


@pytest.mark.parametrize("table", ["table-4-cinic10", "table-7-emnist"])
def test_a_dry_run_of_a_papers_table_estimates_gpu_hours_and_runs_nothing(
    table, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", f"paper/{table}", "--dry-run", "--where", "defense!=flip"]) == 0
    shown = capsys.readouterr()
    assert "GPU hours" in shown.out
    assert "The same in all cells: seed 71" in shown.out
    assert "guessed from what the paper says of a run of its own" in shown.out.replace("\n", " ")
    assert "runs/paper/" in shown.out  # one folder, as tables share runs
    assert not (tmp_path / "runs").exists()


def test_a_guess_stands_for_the_runs_that_finished_ones_cannot_tell_of(
    tmp_path, monkeypatch, capsys, finish
):
    """One run of DROPlet says how long training takes, not what FLIP or a distillation does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("entity.cli.sweep.side_by_side", lambda: 1)
    chosen = find("paper/table-3-cifar10")
    cells = expand(chosen.grid, Path("runs/paper"))
    (done,) = (c for c in cells if (c.labels["defense"], c.labels["rate"]) == ("droplet", "5%"))
    finish(done, seconds=3600.0)

    def said(name, *where):
        assert main(["reproduce", name, "--dry-run", "--where", *where]) == 0
        return " ".join(capsys.readouterr().out.split())

    table = "paper/table-3-cifar10"
    alone = said(table, "defense=flip", "rate=5%")
    assert "about 57 GPU hours: guessed from what the paper says" in alone
    assert "judged by" not in alone
    both = said(table, "defense=flip,drop,median", "rate=5%")
    assert (
        "about 1.0 hours with 1 job, judged by 1 finished run of the same data set and model; "
        "2 more runs: about 59 GPU hours, 57 of them flip's: guessed from" in both
    )
    one = said("paper-cifar10", "defense=drop", "seed=71")
    assert "about 2.0 GPU hours: guessed" in one  # as of the same run in the paper's table
    # 32 runs that train as DROPlet's did, 4 of FLIP and 4 of DROP, one after another.
    total = 32 * 1.0 + 4 * 57 + 4 * 2.0
    assert reproduce._hours(cells, Path("runs/paper"), None) == pytest.approx(total, abs=0.5)
