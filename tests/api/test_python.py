"""`entity.run`, `entity.sweep` and `entity.results`, as a script or a notebook calls them."""

import builtins
import inspect
import io
import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import matplotlib as mpl
import pytest

import entity
from entity import experiment
from entity.api import notebook, run
from entity.api.progress import Display
from entity.config.schema import ConfigError
from entity.experiment import Result
from entity.record.json_files import write_json
from entity.setup import resolve
from entity.setup.field_list import all_names
from entity.sweep.runner import Failure

mpl.use("Agg")
BOTH = {"rounds": 2, "seed": 3}


@pytest.fixture(scope="module")
def result(tmp_path_factory, tables):
    """A run of two rounds in a folder."""
    return entity.run(tables(), tmp_path_factory.mktemp("r") / "mine", progress=False, **BOTH)


def line(number, **values):
    return {
        "round": number, "mta": 0.5, "asr": 0.25, "metrics": {"victim_accuracy": 0.75},
        "selected": [0, 1, 2], "malicious": [1, 2], "accepted": [0, 1], "refused": [2],
        "seconds": {"train": 1.0, "aggregate": 0.5, "evaluate": 0.25, "aggregate_average": 0.1},
        **values,
    }  # fmt: skip


def made(lines=(), **summary):
    """Return a result that nobody ran."""
    config = entity.load("mnist5k/drop", seed=3)
    return run.as_shown(Result(config, None, list(lines), summary, None))


# --- entity.run


def test_a_run_takes_fields_by_name_and_is_the_experiment_of_the_loop(result, tables):
    assert result.config.federation.rounds == 2
    assert result.summary["seed"] == 3
    same = experiment.run(entity.load(tables(), **BOTH))
    times = ("seconds",)
    for mine, other in zip(result.rounds, same.rounds, strict=True):
        assert {k: v for k, v in mine.items() if k not in times} == {
            k: v for k, v in other.items() if k not in times
        }


def test_an_experiment_is_changed_by_fields_and_stays_without(tables):
    config = entity.load(tables())
    assert entity.load(config) is config
    assert entity.load(config, DPR=0.25).client.attack.DPR == 0.25
    assert entity.load(config, defense="median").server.defense.type == "median"
    assert resolve.experiment(tables(), [("rounds", 3)]).federation.rounds == 3


@pytest.mark.parametrize(
    ("config", "fields", "said"),
    [
        ("mnist5k/dorp", {}, "config mnist5k/dorp: is neither a file nor a shipped configuration."),
        (3, {}, "config = 3: allowed is a file, the name of a shipped configuration, tables of f"),
        (None, {}, "config = None: allowed only with resume, which goes on with the run of a fol"),
        ("mnist5k/drop", {"roundz": 3}, "roundz is unknown. Did you mean rounds?"),
        ("mnist5k/drop", {"DPR": "much"}, 'client.attack.DPR = "much": allowed is a number from'),
        ("mnist5k/drop", {"rounds": [1]}, "federation.rounds = [1]: allowed is a whole number at"),
        ({"dataset": "mnist5k"}, {}, "model is missing: it needs a text."),
    ],
)
def test_what_cannot_be_run_is_refused_in_a_sentence(config, fields, said):
    with pytest.raises(ConfigError) as refused:
        entity.run(config, **fields)
    assert str(refused.value).startswith(said)


def test_no_field_has_the_name_of_a_parameter():
    for function in (entity.run, entity.sweep, entity.load):
        assert not set(inspect.signature(function).parameters) & all_names() - {"plugins"}


def test_a_stopped_run_goes_on_and_a_finished_one_is_read(result, tmp_path):
    folder = shutil.copytree(result.folder, tmp_path / "copy")
    again = entity.run(None, folder, resume=True, progress=False)
    assert [each["mta"] for each in again.rounds] == [each["mta"] for each in result.rounds]
    longer = entity.run(None, folder, resume=True, progress=False, rounds=3)
    assert len(longer.rounds) == 3


@pytest.mark.parametrize("shown", [True, False])
def test_progress_is_shown_unless_asked_otherwise(tables, capsys, shown):
    told = []
    quick = {"federation.rounds": 1, "client.ADR": 0.02}
    entity.run(tables(quick), on_round=told.append, progress=shown)
    assert [each["round"] for each in told] == [1]
    out, err = capsys.readouterr()
    assert out == ""
    assert ("1/1  MTA" in err) == shown
    entity.run(tables(quick), verbose=False)
    assert capsys.readouterr().err == ""


def test_a_result_is_one_line_and_in_a_notebook_a_table_with_curves():
    shown = made(
        [line(1), line(2, mta=math.nan), line(3, asr=0.75)],
        name="<mine>", mta={"last10": 0.956}, asr={"last10": 0.0}, refusals=120,
        consistency={"worst_asr": 0.02}, detection={"tpr": 0.9, "fpr": math.nan},
        seconds={"total": 61.4},
    )  # fmt: skip
    assert repr(shown) == "<mine>: MTA 95.6%, ASR 0.0%, worst ASR 2.0%, 120 refused, 61 s"
    text = shown._repr_html_()
    for word in ("&lt;mine&gt;", "95.6%", "2.0%", "120", "90.0%", "61.4", "MTA 50%", "ASR 75%"):
        assert word in text
    assert text.count("<polyline") == 2
    points = text.split('<polyline points="')[1].split('"')[0].split()
    assert len(points) == 2  # the second round was not evaluated
    bare = made()
    assert repr(bare).startswith("mnist5k-drop-badnets-seed3: MTA -, ASR -, worst ASR -, 0 refus")
    assert "<svg" not in bare._repr_html_()


def test_a_frame_has_a_row_a_round():
    frame = made([line(1), line(2, mta=None, refused=[], malicious=[], seconds={})]).frame()
    assert list(frame["round"]) == [1, 2]
    assert frame["mta"].isna().tolist() == [False, True]
    assert frame["mta"].dtype == float
    first = frame.iloc[0]
    assert (first["n_selected"], first["n_malicious"], first["n_refused"]) == (3, 2, 1)
    assert first["n_malicious_refused"] == 1
    assert first["victim_accuracy"] == 0.75
    assert (first["seconds"], first["seconds_train"], first["seconds_aggregate_average"]) == (
        1.75,
        1.0,
        0.1,
    )
    assert first["refused"] == [2]
    assert list(frame["seconds"]) == [1.75, 0.0]


def test_figures_are_axes_with_the_curves_of_the_run(result):
    axes = result.plot()
    assert set(axes) >= {"mta", "asr"}
    expected = [100 * each["mta"] for each in result.rounds]
    assert list(axes["mta"].lines[0].get_ydata()) == pytest.approx(expected)
    only = replace(result, folder=None).plot("asr")
    assert list(only) == ["asr"]
    expected = [100 * each["asr"] for each in result.rounds]
    assert list(only["asr"].lines[0].get_ydata()) == pytest.approx(expected)
    for name, said in (("asrr", "Did you mean asr?"), ("heat", "have no data for it")):
        with pytest.raises(ConfigError, match=said.replace("?", r"\?")):
            result.plot(name)
    mpl.pyplot.close("all")


@pytest.mark.parametrize(("package", "ask"), [("pandas", "frame"), ("matplotlib", "plot")])
def test_a_package_that_is_missing_is_named(package, ask, monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == package:
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr("entity.report.paper_figures.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"needs? {package}, which is not installed: pip install"):
        getattr(made([line(1)]), ask)()


# --- notebooks


def test_a_notebook_gets_one_output_that_is_written_over(monkeypatch):
    shown = []

    class Handle:
        def update(self, output):
            shown.append(output._repr_html_())

    def display(output, display_id):
        shown.append(output._repr_html_())
        return Handle()

    monkeypatch.setattr("entity.api.progress.in_notebook", lambda: True)
    fake = type(sys)("IPython.display")
    fake.display = display
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    console = run.Console(file=io.StringIO())
    with Display(console, "<drop>", 4) as bar:
        bar({"round": 1, "mta": 0.5, "asr": None, "refused": []})
        bar.say("a <line>")
    assert console.file.getvalue() == ""
    assert "starting" in shown[0]
    assert 'max="4" value="1"' in shown[-1]
    assert "&lt;drop&gt;" in shown[-1]
    assert "a &lt;line&gt;" in shown[-1]
    assert "1/4  MTA  50.0%" in shown[-1]


def test_only_a_kernel_counts_as_a_notebook(monkeypatch):
    assert not notebook.in_notebook()
    shell = type("Shell", (), {})()
    fake = type(sys)("IPython")
    fake.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", fake)
    assert not notebook.in_notebook()  # ipython in a terminal
    shell.kernel = object()
    assert notebook.in_notebook()


# --- entity.results and entity.sweep


@pytest.fixture
def pretend(monkeypatch):
    """Runs of cells that take no time; those whose name holds a word of the list fail."""
    failing = []

    def run_cells(cells, place, watch, *, retry):
        for cell in cells:
            if any(word in cell.name for word in failing):
                continue
            cell.folder.mkdir(parents=True)
            seed = cell.config.settings.seed
            write_json(cell.folder / "config.json", resolve.to_json(cell.config))
            lines = [json.dumps(line(1, mta=seed / 10)), json.dumps(line(2, mta=seed / 10))]
            (cell.folder / "rounds.jsonl").write_text("\n".join(lines) + "\n")
            write_json(cell.folder / "summary.json", {
                "name": cell.name, "state": "finished", "config_hash": cell.identity,
                "mta": {"last10": seed / 10}, "asr": {"last10": 0.25},
                "consistency": {"worst_asr": seed / 20}, "seconds": {"total": 2.0},
            })  # fmt: skip
        return [Failure(c, "odd <reason>") for c in cells if not c.folder.exists()]

    monkeypatch.setattr("entity.api.sweep.run_cells", run_cells)
    return failing


@pytest.fixture
def swept(pretend, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return entity.sweep("mnist5k/drop", defense=["drop", "flame"], seed=range(1, 4), progress=False)


def test_a_sweep_has_the_grid_s_semantics_and_a_table_over_seeds(swept):
    assert repr(swept) == "6 of 6 runs finished in runs/sweep-mnist5k-drop"
    assert sorted({one.config.server.defense.type for one in swept}) == ["drop", "flame"]
    assert all(one.config.settings.engine == "inline" for one in swept)
    means = swept.means().set_index("defense")
    seeds = [0.1, 0.2, 0.3]
    assert means.loc["flame", "mta_mean"] == pytest.approx(fmean(seeds))
    assert means.loc["flame", "mta_sd"] == pytest.approx(stdev(seeds))
    assert means.loc["drop", "worst_asr"] == pytest.approx(0.15)
    assert list(means["n"]) == [3, 3]
    assert "<td" in swept._repr_html_()
    again = entity.sweep("mnist5k/drop", defense="flame", seed=[1, 9], progress=False)
    assert [cell.state for cell in again.cells] == ["finished", "finished"]
    assert len(entity.results("runs")) == 7  # one of the two was there


def test_results_are_a_frame_and_runs_by_place_name_and_condition(swept):
    runs = entity.results("runs")
    frame = runs.frame()
    assert len(frame) == 6
    assert set(frame["mta"]) == {0.1, 0.2, 0.3}
    assert {"name", "defense", "attack", "seed", "path"} <= set(frame.columns)
    rounds = runs.where("defense=flame", "seed>1").frame(rounds=True)
    assert len(rounds) == 2 * 2
    assert set(rounds["seed"]) == {2, 3}
    assert runs["flame-seed2"].config.settings.seed == 2
    assert len(runs[1:3]) == 2
    assert isinstance(runs[0], entity.Result)
    assert runs.means("defense").shape[0] == 2
    assert repr(runs) == "6 runs in runs, 6 finished"
    assert "flame-seed2" in runs._repr_html_()
    assert len(runs.plot("mta")["mta"].lines) == 2
    mpl.pyplot.close("all")
    for ask, said in (
        (lambda: runs["flame-seed7"], r"0 runs of runs are called flame-seed7\. Did you mean fl"),
        (lambda: runs.where("defence=x"), "defence is a field of none of the runs"),
        (lambda: entity.results("nowhere"), "nowhere: is no folder of runs"),
        (lambda: entity.open_run("nowhere"), "no run at nowhere"),
    ):
        with pytest.raises(ConfigError, match=said):
            ask()


def test_what_fails_is_told_and_the_rest_is_there(pretend, tmp_path):
    pretend.append("flame")
    some = entity.sweep("mnist5k/drop", tmp_path, defense=["median", "flame"], progress=False)
    assert [failure.cell.config.server.defense.type for failure in some.failures] == ["flame"]
    assert repr(some) == f"1 of 2 runs finished in {tmp_path}, 1 failed"
    assert "odd &lt;reason&gt;" in some._repr_html_()
    assert list(some.summary().rows[1][:2]) == ["flame", 0]


def test_a_sweep_takes_a_file_several_configs_bundles_and_tables(pretend, tmp_path, tables):
    (tmp_path / "g.yaml").write_text("base: mnist5k/drop\naxes: {lr: [0.1, 0.2]}\n")
    quiet = {"progress": False, "folder": tmp_path / "r"}
    assert len(entity.sweep(grid=tmp_path / "g.yaml", seed=[1, 2], **quiet)) == 4
    names = ["mnist5k/median", "mnist5k/flame"]
    assert len(entity.sweep(names, rounds=2, **quiet).summary().rows) == 2
    bundles = {"none": {"client.attack": None}, "dba": {"poison": "dba"}}
    both = entity.sweep(tables(), attack=bundles, **quiet)
    assert [cell.labels["attack"] for cell in both.cells] == ["none", "dba"]
    chosen = entity.sweep(names, seed=[1, 2], where="seed=2", **quiet)
    assert len(chosen.cells) == 2
    new = entity.sweep(names, seed=[5], where="state=new", **quiet)
    assert [cell.state for cell in new.cells] == ["finished"] * 2


@pytest.mark.parametrize(
    ("given", "axes", "said"),
    [
        ({"config": None}, {}, "config: is missing; give one, or a grid file as grid."),
        ({"config": 3}, {}, "config = 3: allowed is a file, the name of a shipped configuration, "),
        ({"config": "mnist5k/drop", "grid": "g.yaml"}, {}, 'config = "mnist5k/drop": a grid file'),
        ({"config": "mnist5k/drop", "jobs": 0}, {}, "jobs = 0: allowed is a whole number from 1 t"),
        ({"config": "mnist5k/drop"}, {"lr": []}, "sweep: axes.lr: is empty"),
        ({"config": "mnist5k/drop"}, {"DPR": [0.5, 7]}, "sweep: cell DPR=7: client.attack.DPR = 7"),
        ({"config": "mnist5k/drop"}, {"roundz": 3}, "sweep: cell roundz=3: roundz is unknown."),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_is_refused_before_anything_runs(
    pretend, given, axes, said, tmp_path
):
    with pytest.raises(ConfigError) as refused:
        entity.sweep(folder=tmp_path / "r", progress=False, **given, **axes)
    assert str(refused.value).startswith(said)
    assert not (tmp_path / "r").exists()


def test_packages_stay_packages_and_can_be_called():
    import entity.results.store
    import entity.sweep.grid

    assert callable(entity.sweep)
    assert callable(entity.results)
    assert entity.sweep.grid.SEED == "seed"
    assert "defense" not in inspect.signature(entity.sweep).parameters
    assert "where" in inspect.signature(entity.sweep).parameters
    assert {"run", "sweep", "results"} <= set(dir(entity))


SCRIPT = """
import entity

result = entity.run({tables!r}, rounds=1, workers=2)
print(result.config.settings.engine, len(result.rounds))
found = entity.sweep({tables!r}, "swept", seed=[1], rounds=1)
print(found)
"""


@pytest.mark.slow
@pytest.mark.parametrize("way", ["stdin", "script"])
def test_it_runs_from_standard_input_and_in_a_script_without_a_guard(way, tmp_path, tables):
    text = SCRIPT.format(tables=tables({"client.ADR": 0.05, "settings.engine": "auto"}))
    (tmp_path / "script.py").write_text(text)
    words = ["-"] if way == "stdin" else ["script.py"]
    done = subprocess.run(
        [sys.executable, *words], input=text if way == "stdin" else None, cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["auto 1", "1 of 1 run finished in swept"]
    assert "1/1  MTA" in done.stderr
    assert Path(tmp_path, "swept").is_dir()
