"""Sweeps of real runs in real processes: failing, killed, stopped, and gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from itertools import product
from pathlib import Path

import pytest
import yaml
from PIL import Image

from entity import experiment
from entity.cli import main
from entity.config.schema import ConfigError
from entity.sweep import data
from entity.sweep.cells import expand
from entity.sweep.grid_file import read

NOBODY = {"client.attack": None, "federation.number_of_malicious_clients": 0}
SHORT = {"client.ADR": 0.05, "federation.rounds": 3}


@pytest.fixture
def write(tmp_path, tables, monkeypatch):
    """Write a grid file and make its folder the current one."""

    def grid(changes, **keys):
        monkeypatch.chdir(tmp_path)
        Path("g.yaml").write_text(yaml.safe_dump({"base": tables({**SHORT, **changes}), **keys}))
        return Path("g.yaml")

    return grid


@pytest.fixture
def start(tmp_path):
    """`drop sweep` in a session of its own, none of whose processes outlives the test."""
    started = []

    def sweep(*words):
        process = subprocess.Popen(
            [sys.executable, "-m", "entity.cli", "sweep", *words],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield sweep
    for process in started:
        for one in left_of(process.pid):
            os.kill(one, signal.SIGKILL)
        process.communicate()


def left_of(session):
    """Processes of a session that still live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = entry.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, of_session = rest.split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(int(entry.parent.name))
    return found


def wait_until(condition, seconds=120.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def states(folder):
    found = [path.read_text() for path in folder.glob("*/summary.json")]
    return sorted(json.loads(text)["state"] for text in found if text)


def numbers(folder):
    """The lines of a run without what a clock said."""
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


needs_proc = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks processes up in /proc"
)


@needs_proc
@pytest.mark.slow
def test_a_sweep_that_is_killed_half_way_is_finished_to_the_bit(write, start, tmp_path, capsys):
    rounds = {"federation.rounds": 20}
    grid = write(rounds, axes={"server.defense.type": ["undefended", "foolsgold"]}, seeds=[1, 2])
    cells = expand(read(grid), tmp_path / "out")
    sweep = start("g.yaml", "--out", "out", "--jobs", "2")
    wait_until(lambda: "finished" in states(tmp_path / "out"))
    wait_until(lambda: "running" in states(tmp_path / "out"))
    os.killpg(sweep.pid, signal.SIGKILL)
    wait_until(lambda: not left_of(sweep.pid), 30)  # the workers are groups of their own
    before = states(tmp_path / "out")
    assert "finished" in before
    assert before.count("finished") < 4
    models = (tmp_path / "out").glob("*/model.safetensors")
    done = {  # one that was killed at its very end may have a model, and is not finished
        path: path.stat().st_mtime_ns
        for path in models
        if json.loads((path.parent / "summary.json").read_text())["state"] == "finished"
    }
    assert done
    assert main(["sweep", "g.yaml", "--out", "out", "--jobs", "2"]) == 0
    assert "4 of 4 runs are finished" in capsys.readouterr().out
    assert states(tmp_path / "out") == ["finished"] * 4
    assert all(path.stat().st_mtime_ns == when for path, when in done.items())  # not run again
    for cell in cells:
        assert cell.folder.is_dir()
        assert len(numbers(cell.folder)) == 20
    last = cells[-1]
    alone = experiment.run(last.config, tmp_path / "alone")
    assert numbers(last.folder) == numbers(tmp_path / "alone")
    assert len(alone.rounds) == 20


@pytest.mark.slow
@needs_proc
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_sweep_that_is_told_to_stop_puts_its_runs_away(write, start, tmp_path, number, code):
    write({"federation.rounds": 100_000})
    sweep = start("g.yaml", "--out", "out")
    wait_until(lambda: states(tmp_path / "out") == ["running"])
    os.killpg(sweep.pid, number)
    shown, said = sweep.communicate(timeout=60)
    assert sweep.returncode == code
    assert "Traceback" not in shown + said
    assert left_of(sweep.pid) == []
    assert states(tmp_path / "out") == ["interrupted"]
    (folder,) = (tmp_path / "out").glob("[!.]*")
    assert not (folder / "error.txt").exists()
    assert list(folder.glob("checkpoint/*.json"))


NETS = """
import os
from pathlib import Path
from torch import nn

class Net(nn.Sequential):
    def __init__(self, channels, size, classes):
        super().__init__(nn.Flatten(), nn.Linear(channels * size * size, classes))

class Torn(Net):
    def forward(self, x):
        if len(x) > 20 and self.training:
            raise RuntimeError("the net is torn")
        return super().forward(x)

class Deadly(Net):
    def forward(self, x):
        if len(x) > 20 and self.training:
            os.kill(os.getpid(), 9)
        return super().forward(x)

class Flaky(Net):
    def forward(self, x):
        if len(x) > 20 and self.training and not Path("was_here").exists():
            Path("was_here").touch()
            raise RuntimeError("only once")
        return super().forward(x)
"""


@pytest.mark.slow
def test_one_bad_cell_never_stops_the_rest(write, tmp_path, monkeypatch, capsys):
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    models = [f"nets_of_mine:{name}" for name in ("Torn", "Deadly", "Flaky", "Net")]
    grid = write({"federation.rounds": 1}, axes={"model": models})
    assert main(["sweep", "g.yaml", "--out", "out", "--jobs", "2"]) == 1
    shown = capsys.readouterr()
    cells = {cell.labels["model"][13:]: cell for cell in expand(read(grid), tmp_path / "out")}
    assert {name: cell.state for name, cell in cells.items()} == {
        "Torn": "failed",
        "Deadly": "failed",
        "Flaky": "finished",
        "Net": "finished",
    }
    failed = [line for line in shown.out.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2
    assert "RuntimeError: the net is torn" in shown.out
    assert "killed by SIGKILL" in shown.out
    assert shown.err.count("will be tried again") == 3
    torn = (cells["Torn"].folder / "error.txt").read_text()
    assert torn.startswith("Traceback (most recent call last):")
    assert not (cells["Flaky"].folder / "error.txt").exists()
    assert main(["results", "out", "--where", "state=failed", "--format", "csv"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_missing_data_ends_a_sweep_before_its_first_cell_with_one_sentence(write, capsys):
    write({}, axes={"dataset": ["mnist"], "datasets_path": ["nowhere"], "seed": [1, 2]})
    assert main(["sweep", "g.yaml", "--out", "out"]) == 2
    shown = capsys.readouterr()
    assert shown.err.count("settings.datasets_path = nowhere: MNIST is not in nowhere") == 1
    assert not Path("out").exists() or not any(Path("out").iterdir())


COUNTED = """
import os, sys
from pathlib import Path
from torch import nn

def net(channels, size, classes):
    if "-m" in sys.orig_argv and "entity.sweep.worker" in sys.orig_argv:
        with open("workers", "a") as file:
            file.write(f"{os.getpid()}\\n")
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size * size, classes))
"""


@pytest.mark.slow
def test_two_sweeps_in_one_folder_divide_its_cells(write, start, tmp_path, monkeypatch):
    (tmp_path / "counted.py").write_text(COUNTED)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, sys.path)]))
    write({"federation.rounds": 1, "model": "counted:net"}, seeds=[1, 2, 3, 4])
    both = [start("g.yaml", "--out", "out", "--jobs", "1") for _ in range(2)]
    said = [sweep.communicate(timeout=240) for sweep in both]
    assert "Traceback" not in str(said)
    assert states(tmp_path / "out") == ["finished"] * 4
    assert len(set((tmp_path / "workers").read_text().split())) == 4  # none of them twice
    assert list((tmp_path / "out").glob("*/error.txt")) == []
    for (shown, _), sweep in zip(said, both, strict=True):
        # The one that ends first leaves at most the cell that the other one still runs.
        left = [line for line in shown.splitlines() if line.startswith("left: ")]
        assert len(left) <= 1
        assert sweep.returncode == len(left)
        assert all(" is at work on it" in line for line in left)
    assert {sweep.returncode for sweep in both} & {0} == {0}


def pets(place, colour):
    """Make a folder of grey images of two classes."""
    for part, label in product(("train", "test"), ("cat", "dog")):
        folder = place / "pets" / part / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(20):
            image = Image.new("L", (28, 28), colour + 20 * (label == "dog") + number)
            image.save(folder / f"{number}.png")


def test_data_that_a_sweep_is_told_of_go_before_those_of_the_environment(
    write, tmp_path, monkeypatch
):
    """Regression: its processes took what DROP_DATA says, and trained on other images."""
    for place, colour in (("told", 10), ("other", 200)):
        pets(tmp_path / place, colour)
    changes = {"dataset": "imagefolder:pets", "client.ADR": 1.0, "server.held_out": 2}
    write({**changes, **NOBODY})
    monkeypatch.setenv("DROP_DATA", str(tmp_path / "other"))
    told = str(tmp_path / "told")
    assert main(["sweep", "g.yaml", "--datasets_path", told, "--out", "swept", "--quiet"]) == 0
    (folder,) = Path("swept").glob("*/config.json")
    assert json.loads(folder.read_text())["settings"]["datasets_path"] == told


def test_a_sweep_into_a_run_is_refused_before_anything_is_written(write, tmp_path, capsys):
    write({}, axes={"seed": [1, 2]})
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "rounds.jsonl"):
        (run / name).write_text("{}")
    for place in (run, run / "in" / "it"):
        for words in (["--dry-run"], []):
            assert main(["sweep", "g.yaml", "--out", str(place), *words]) == 2
            assert f"{place}: is the folder of a run, or lies in it" in capsys.readouterr().err
    assert len(list(run.iterdir())) == 2


def test_data_of_one_name_in_two_folders_are_not_taken_for_one_run(write, capsys):
    """Regression: they were merged into one cell, without a word."""
    write({"dataset": "imagefolder:pets", "server.held_out": 2, **NOBODY})
    for place, colour in (("here", 10), ("there", 200)):
        pets(Path(place), colour)
    words = ["sweep", "g.yaml", "--datasets_path", "here,there", "--dry-run"]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "settings.datasets_path = there: a run is known by the name of its data" in said
    write({})  # shipped data are the same everywhere
    assert main(words) == 0
    assert "1 run" in capsys.readouterr().out


def test_finished_runs_on_data_that_have_changed_are_no_part_of_a_sweep(write, capsys):
    """Regression: they stood beside runs on the new data, as if nothing had changed."""
    write({"dataset": "imagefolder:pets", "server.held_out": 2, "client.ADR": 1.0, **NOBODY})
    pets(Path("here"), 10)
    words = ["sweep", "g.yaml", "--datasets_path", "here", "--out", "runs", "--quiet"]
    assert main([*words, "--seed", "1"]) == 0
    pets(Path("here"), 200)
    more = [*words, "--seed", "1,2"]
    capsys.readouterr()
    for each in (more, [*more, "--dry-run"]):
        assert main(each) == 2
        said = capsys.readouterr().err
        assert "was trained on other data than settings.datasets_path = here" in said
    assert len(list(Path("runs").glob("*/rounds.jsonl"))) == 1
    pets(Path("here"), 10)
    assert main(more) == 0


def test_finished_runs_can_be_read_where_their_data_are_not(write, monkeypatch, capsys):
    write(NOBODY)
    assert main(["sweep", "g.yaml", "--out", "runs", "--quiet"]) == 0

    def gone(*_):
        raise ConfigError("settings.datasets_path: is empty")

    monkeypatch.setattr(data, "split_data", gone)
    assert main(["sweep", "g.yaml", "--out", "runs", "--dry-run"]) == 0
    assert "finished" in capsys.readouterr().out
