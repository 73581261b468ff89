"""`drop sweep` as a user meets it; no experiment is run here."""

import io
import json
from pathlib import Path

import pytest
import yaml

from entity.cli import console, main, sweep
from entity.dataset.files import Files
from entity.setup import resolve
from entity.sweep.cells import expand
from entity.sweep.grid_file import read
from entity.sweep.runner import Failure


@pytest.fixture
def pretend(monkeypatch, finish):
    """Sweeps that are asked for; runs named in `failing` fail and the others are finished."""
    asked, failing = [], set()

    def run_cells(cells, place, watch, *, retry):
        asked.append(([cell.name for cell in cells], place.jobs, retry))
        for cell in cells:
            watch.tick([], cells)
            if cell.name not in failing:
                watch.finished(finish(cell))
        return [Failure(cell, "odd") for cell in cells if cell.name in failing]

    monkeypatch.setattr("entity.api.sweep.run_cells", run_cells)
    return asked, failing


def test_a_sweep_runs_what_is_not_finished_and_says_how_it_went(grid, pretend, capsys):
    asked, _ = pretend
    assert main(["sweep", grid, "--jobs", "3"]) == 0
    names = ["lr0.1-seed1", "lr0.2-seed1", "lr0.1-seed2", "lr0.2-seed2"]
    assert asked == [(names, 3, True)]
    shown = capsys.readouterr()
    *table, last = shown.out.splitlines()
    assert [line.split() for line in table] == [
        ["lr", "n", "MTA", "%", "ASR", "%", "worst", "ASR", "%", "TPR", "%", "FPR", "%", "seconds"],
        ["0.1", "2", "50.0", "±", "0.0", "-", "-", "-", "-", "3600.0", "±", "0.0"],
        ["0.2", "2", "50.0", "±", "0.0", "-", "-", "-", "-", "3600.0", "±", "0.0"],
    ]
    assert last == "4 of 4 runs are finished; `drop results runs/tiny` shows them"
    assert "tiny.yaml: 4 runs: 4 new" in shown.err
    assert "4/4  lr0.2-seed2  MTA  50.0%" in shown.err
    assert main(["sweep", grid]) == 0
    assert len(asked) == 1  # all was done
    assert "4 runs: 4 finished" in capsys.readouterr().err


def test_failures_are_listed_at_the_end_with_exit_code_1(grid, pretend, capsys):
    pretend[1].add("lr0.2-seed1")
    assert main(["sweep", grid, "--out", "o"]) == 1
    *failed, _, _, _, last = capsys.readouterr().out.splitlines()
    assert len(failed) == 1
    assert failed[0].startswith("failed: o/lr0.2-seed1-")
    assert failed[0].endswith(": odd")
    assert last.startswith("3 of 4 runs are finished")


def test_what_failed_before_is_tried_again_unless_told_otherwise(
    grid, cells, pretend, capsys, finish
):
    asked, _ = pretend
    finish(cells[0], "failed")
    assert main(["sweep", grid, "--no-retry"]) == 1
    assert len(asked[0][0]) == 3
    assert asked[0][2] is False
    assert "ValueError: odd [bold]reason[/]" in capsys.readouterr().out
    assert main(["sweep", grid]) == 0
    assert asked[1][0] == ["lr0.1-seed1"]


def test_a_part_is_chosen_by_conditions(grid, pretend, capsys):
    asked, _ = pretend
    assert main(["sweep", grid, "--where", "seed=2", "lr<0.15"]) == 0
    assert main(["sweep", grid, "--where", "seed=1", "--where", "client.lr=0.2"]) == 0
    assert [names for names, _, _ in asked] == [["lr0.1-seed2"], ["lr0.2-seed1"]]
    assert main(["sweep", grid, "--where", "seed>2"]) == 2
    assert "--where seed>2: holds for none of the 4 runs." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("seed=3", "--where seed=3: is no value of the axis seed. It has 1, 2."),
        ("seed=1,3", "--where seed=3: is no value of the axis seed. It has 1, 2."),
        ("seed!=3", "--where seed!=3: is no value of the axis seed. It has 1, 2."),
        ("sed=3", "--where: sed is a field of none of the runs. Did you mean seed? The axes are"),
        ("zzz=3", "--where: zzz is a field of none of the runs. The axes are "),
    ],
)
def test_a_condition_that_nothing_can_meet_says_what_can(grid, pretend, capsys, condition, said):
    asked, _ = pretend
    assert main(["sweep", grid, "--where", condition]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not asked


def test_a_condition_may_write_the_number_of_an_axis_in_another_way(grid, pretend):
    asked, _ = pretend
    assert main(["sweep", grid, "--where", "seed=2.0", "client.lr=1e-1"]) == 0
    assert [names for names, _, _ in asked] == [["lr0.1-seed2"]]


def test_a_dry_run_runs_nothing_and_writes_nothing(grid, pretend, capsys):
    assert main(["sweep", grid, "--dry-run", "--jobs", "2"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0].startswith("new          runs/tiny/lr0.1-seed1-")
    assert shown[4:] == [
        "tiny.yaml: 4 runs: 4 new",
        "how long that takes cannot be known: no run of mnist5k with cnn is finished yet",
    ]
    assert pretend[0] == []
    assert not Path("runs").exists()


def test_a_shipped_configuration_in_the_place_of_a_grid_is_one(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["mnist5k/drop"], ["mnist5k/drop,mnist5k/flame"]):
        shown = []
        for place in (words, ["--config", *words]):
            assert main(["sweep", *place, "--seed", "1,2", "--dry-run"]) == 0
            shown.append(capsys.readouterr().out)
        assert shown[0] == shown[1]
    Path("mnist5k").mkdir()
    Path("mnist5k/drop").write_text('{"base": "mnist5k/flame"}')  # a file comes first
    assert main(["sweep", "mnist5k/drop", "--seed", "1", "--dry-run"]) == 0
    assert "flame" in capsys.readouterr().out


def test_a_dry_run_judges_time_by_runs_of_the_same_data_set_and_model(
    grid, cells, capsys, finish, monkeypatch
):
    monkeypatch.setattr("entity.cli.sweep.cores", lambda: 4)
    finish(cells[0], seconds=3600.0)
    finish(cells[1], "interrupted", seconds=1.0)
    assert main(["sweep", grid, "--dry-run", "--jobs", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[4:] == [
        "tiny.yaml: 4 runs: 1 finished, 1 interrupted, 2 new",
        "about 1.5 hours with 2 jobs, judged by 1 finished run of the same data set and model",
    ]
    assert main(["sweep", grid, "--dry-run", "--out", "elsewhere", "--jobs", "4"]) == 0
    assert "about 1.0 hours with 4 jobs" in capsys.readouterr().out  # runs/ is looked at, too
    monkeypatch.setattr("entity.cli.sweep.cores", lambda: 2)  # which four jobs share
    assert main(["sweep", grid, "--dry-run", "--out", "elsewhere", "--jobs", "4"]) == 0
    assert "about 2.0 hours with 4 jobs" in capsys.readouterr().out
    assert main(["sweep", grid, "--dry-run", "--where", "state=finished"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "nothing to do"


def test_a_condition_on_the_state_chooses_before_the_runs(grid, pretend, capsys):
    assert main(["sweep", grid, "--where", "state=new"]) == 0
    assert "4 of 4 runs are finished" in capsys.readouterr().out


def test_a_dry_run_says_for_what_it_cannot_know(grid, cells, capsys, finish):
    finish(cells[0], seconds=60.0)
    data = yaml.safe_load(Path(grid).read_text())
    data["axes"] = {"model": ["cnn", "lenet"]}
    Path(grid).write_text(yaml.safe_dump(data))
    assert main(["sweep", grid, "--dry-run", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "about 2.0 minutes with 1 job, judged by 1 finished run of the same data set and model; "
        "2 of mnist5k with lenet, of which none is finished, come on top"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sweep", "nowhere.yaml"], "grid nowhere.yaml: No such file or directory."),
        (["sweep", "tiny.yaml", "--lr", "3"], "grid tiny.yaml: axes: lr comes twice."),
        (
            ["sweep", "tiny.yaml", "--roundz", "3"],
            "roundz=3: roundz is unknown. Did you mean",
        ),
        (["sweep", "tiny.yaml", "--DPR", "0.5,,1"], "--DPR 0.5,,1: has an empty value; allowed is"),
        (["sweep", "tiny.yaml", "--DPR", "1", "--DPR=1"], "--DPR: is given twice; its values have"),
        (
            ["sweep", "--DPR", "1"],
            "drop sweep: needs a grid file, or --config with",
        ),
        (["sweep", "tiny.yaml", "--config", "x"], "--config x: tiny.yaml has a base; leave"),
        (
            ["sweep", "--config", "mnist5k/drop", "--defense", "drop", "flame"],
            '"flame" belongs to no option; several values of a field have commas between them',
        ),
        (
            ["sweep", "--config", "mnist5k/dorp"],
            "config mnist5k/dorp: is neither a file",
        ),
        (
            ["sweep", "--config", "mnist5k/drop", "--DPR", "7"],
            "sweep: cell DPR=7: client.attack",
        ),
        (["sweep", "tiny.yaml", "--where", "lr"], "is no condition"),
        (["sweep", "tiny.yaml", "--out", "tiny.yaml/x"], "--out tiny.yaml/x: cannot be written"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(grid, pretend, capsys, words, said):
    assert main(words) == 2
    shown = capsys.readouterr().err
    assert said in shown
    assert "Traceback" not in shown
    assert pretend[0] == []


def test_a_sweep_needs_no_file(pretend, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["sweep", "--config", "mnist5k/drop", "--defense", "drop,flame", "--seed", "1,2,3"]
    assert main([*words, "--jobs", "2", "--rounds=5"]) == 0
    (names, jobs, _) = pretend[0][0]
    assert jobs == 2
    assert names == [f"{name}-seed{seed}" for seed in (1, 2, 3) for name in ("drop", "flame")]
    *_, drop, flame, last = capsys.readouterr().out.splitlines()
    assert (drop.split()[:2], flame.split()[:2]) == (["drop", "3"], ["flame", "3"])
    assert "runs/sweep-mnist5k-drop" in last
    folder = next(Path("runs/sweep-mnist5k-drop").iterdir())
    assert json.loads((folder / "config.json").read_text())["federation"]["rounds"] == 5
    several = ["sweep", "--config", "mnist5k/median,mnist5k/flame", "--attack", "none,badnets"]
    assert main([*several, "--dry-run"]) == 0
    assert "4 runs: 4 new" in capsys.readouterr().out


def test_fields_beside_a_file_are_more_axes_and_quiet_is_quiet(grid, pretend, capsys):
    assert main(["sweep", grid, "--DPR", "0.5,1", "--quiet"]) == 0
    assert len(pretend[0][0][0]) == 8
    assert capsys.readouterr() == ("", "")
    pretend[1].add("lr0.1-seed9")
    assert main(["sweep", grid, "--where", "lr=0.1", "--quiet", "--num_epochs", "7"]) == 0


@pytest.mark.parametrize("jobs", ["0", "-1", "two", "1.5", "99999"])
def test_jobs_are_a_whole_number(grid, capsys, jobs):
    with pytest.raises(SystemExit) as leaving:
        main(["sweep", grid, "--jobs", jobs])
    assert leaving.value.code == 2
    assert "is no whole number from 1 to 1024" in capsys.readouterr().err


def test_a_bad_cell_is_named_before_anything_runs(grid, pretend, capsys):
    data = yaml.safe_load(Path(grid).read_text())
    data["axes"]["DPR"] = [0.5, 7]
    Path(grid).write_text(yaml.safe_dump(data))
    assert main(["sweep", grid]) == 2
    shown = capsys.readouterr().err
    assert "grid tiny.yaml: cell seed=1, DPR=7, lr=0.1: client.attack.DPR = 7" in shown
    assert "(Cells that are refused: 4.)" in shown
    assert pretend[0] == []


def test_the_grid_of_the_documentation_is_one(tmp_path):
    """The first YAML block of the guide that has axes."""
    page = (Path(sweep.__file__).parents[2] / "docs" / "guide" / "sweeps.md").read_text()
    block = next(part for part in page.split("```yaml\n")[1:] if "axes:" in part).split("```")[0]
    (tmp_path / "grid.yaml").write_text(block)
    assert len(expand(read(tmp_path / "grid.yaml"), tmp_path)) > 1


@pytest.mark.parametrize("path", sorted(Path(sweep.__file__).parents[2].glob("examples/*.yaml")))
def test_the_examples_are_grids(path, tmp_path):
    cells = expand(read(path), tmp_path)
    assert len(cells) > 1
    assert json.dumps([resolve.to_json(cell.config) for cell in cells])


@pytest.fixture
def bare(tmp_path, monkeypatch, tables):
    """A grid of four cells of a data set in an empty data folder, and the downloads tried."""
    tried = []

    def obtain(self, root, download):
        tried.append(self.title)
        raise self.missing(root, " and could not be downloaded (no network)")

    monkeypatch.setattr(Files, "obtain", obtain)
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()

    def grid(dataset):
        base = tables({"dataset": dataset, "settings.datasets_path": "empty"})
        Path("g.yaml").write_text(
            yaml.safe_dump({"base": base, "seeds": [1, 2], "axes": {"lr": [0.1, 0.2]}})
        )
        return "g.yaml"

    return grid, tried


def test_missing_data_is_looked_for_once_before_the_first_cell(bare, pretend, capsys):
    grid, tried = bare
    assert main(["sweep", grid("mnist"), "--out", "r"]) == 2
    said = capsys.readouterr().err
    assert tried == ["MNIST"]
    assert said.count("could not be downloaded (no network)") == 1
    assert "Traceback" not in said
    assert pretend[0] == []
    assert not Path("r").exists()
    assert main(["sweep", grid("cinic10"), "--out", "r"]) == 2
    assert capsys.readouterr().err.count("settings.datasets_path = empty: ") == 1
    assert len(tried) == 1  # a run does not download it


def test_a_dry_run_says_what_data_is_missing_and_downloads_nothing(bare, capsys):
    grid, tried = bare
    assert main(["sweep", grid("mnist"), "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("MNIST is not in empty/MNIST/raw: it will be downloaded first.") == 1
    assert main(["sweep", grid("cinic10"), "--dry-run"]) == 0
    assert " ".join(capsys.readouterr().err.split()).count("settings.datasets_path = empty: ") == 1
    assert tried == []


@pytest.mark.parametrize(("width", "whole"), [(80, True), (35, False)])
def test_the_table_of_a_sweep_fits_a_narrow_terminal(
    grid, cells, finish, capsys, monkeypatch, width, whole
):
    out = io.StringIO()
    terminal = console.plain(file=out, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(console, "out", terminal)
    for cell in cells:
        finish(cell)
    assert main(["sweep", grid]) == 0
    *lines, _ = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "50.0 ± 0.0" in out.getvalue()
    assert ("3600.0 ± 0.0" in out.getvalue()) is whole
    said = capsys.readouterr().err
    assert ("Left out, as there is no room: TPR, FPR, seconds. " in said) is not whole
    assert "means of the last 10 evaluated rounds" in said
