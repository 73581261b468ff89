"""Trackers of real runs: what they hear, that they harm no run, and that a resume is one run."""

import json
import logging
from pathlib import Path

import pytest

from entity import experiment, trackers
from entity.cli import main
from entity.config.schema import ConfigError
from entity.record.follow import last_line
from entity.record.json_files import write_json
from entity.setup import resolve
from entity.setup.resume import recorded
from entity.trackers import handle

SHORT = {"client.ADR": 0.05, "federation.rounds": 3, "settings.trackers": ["tensorboard"]}


@pytest.fixture
def odd(monkeypatch):
    """Let an odd tracker stand in for TensorBoard, installed or not."""

    def use(name, patience=60.0):
        monkeypatch.syspath_prepend(str(Path(__file__).parent))
        monkeypatch.setitem(handle.TRACKERS, "tensorboard", f"odd_trackers:{name}")
        monkeypatch.setattr(handle, "PATIENCE", patience)
        monkeypatch.setattr(handle.importlib.util, "find_spec", lambda name: logging.__spec__)

    return use


def notes(folder):
    return [json.loads(line) for line in (folder / "trackers/notes").read_text().splitlines()]


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_a_tracker_hears_the_config_every_round_and_the_end(odd, tables, tmp_path, caplog):
    odd("Notes")
    result = experiment.run(resolve.experiment(tables(SHORT)), tmp_path / "r")
    start, *rounds, end = notes(tmp_path / "r")
    assert start == ["start", (tmp_path / "r/trackers/id").read_text(), result.config.name, "cnn"]
    assert rounds == [
        ["log", line["round"], line["mta"], len(line["refused"])] for line in result.rounds
    ]
    assert len(rounds) == 3
    assert end == ["finish", "finished", 3]
    assert not warnings(caplog)


@pytest.mark.parametrize(
    ("name", "patience", "reason"),
    [
        ("RaisesAtStart", 60.0, "ValueError: no [bold]such[/] server at all"),
        ("RaisesInARound", 60.0, "RuntimeError: disk is full"),
        ("HangsInARound", 0.2, "it had not ended 0.2 s after the run"),
        ("Dies", 60.0, "it ended with exit code -9"),
    ],
)
def test_a_tracker_that_fails_is_one_warning_and_the_run_is_as_without_it(
    odd, tables, tmp_path, caplog, name, patience, reason
):
    odd(name, patience)
    tracked = experiment.run(resolve.experiment(tables(SHORT)), tmp_path / "a")
    plain = experiment.run(
        resolve.experiment(tables({**SHORT, "settings.trackers": []})), tmp_path / "b"
    )
    assert warnings(caplog) == [
        f"the tracker tensorboard is dropped, the run is not touched by it: {reason}"
    ]
    assert tracked.summary["state"] == "finished"
    assert tracked.summary["config_hash"] == plain.summary["config_hash"]
    assert tracked.state.weights.equal(plain.state.weights)


def test_a_resume_goes_on_with_the_same_tracker_run_and_tells_no_round_twice(odd, tables, tmp_path):
    odd("Notes")
    config = resolve.experiment(tables({**SHORT, "settings.checkpoint_every": 1}))

    def stop(line):
        if line["round"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experiment.run(config, tmp_path, on_round=stop)
    assert notes(tmp_path)[-1] == ["finish", "interrupted", 2]
    for checkpoint in (tmp_path / "checkpoint").glob("round_0002*"):
        checkpoint.unlink()  # so that round 2 is run again, as after a crash
    experiment.run(recorded(tmp_path), tmp_path, resume=True)
    told = notes(tmp_path)
    assert [words[1] for words in told if words[0] == "log"] == [1, 2, 3]
    first, second = (words[1] for words in told if words[0] == "start")
    assert first == second
    assert told[-1] == ["finish", "finished", 3]
    experiment.run(config, tmp_path, overwrite=True)
    assert notes(tmp_path)[0][1] != first  # another run


def test_a_tracker_of_a_run_that_was_killed_ends_with_it(odd, tmp_path):
    odd("Notes")
    write_json(tmp_path / "config.json", {"dataset": "d", "model": "m", "name": "n"})
    (tmp_path / "rounds.jsonl").touch()
    tracker = handle._start("tensorboard", tmp_path)
    tracker.process.stdin.close()  # all that the system does for a process that is killed
    assert tracker.process.wait(60) == 1  # no summary to read of
    assert "rounds" in last_line(tracker.output)


@pytest.mark.slow
@pytest.mark.parametrize("patience", [1])
def test_a_tracker_that_nobody_waits_for_any_more_does_not_stay(odd, tmp_path, patience):
    odd("HangsInARound", patience)
    write_json(tmp_path / "config.json", {"dataset": "d", "model": "m"})
    line = {"round": 1, "mta": 1, "asr": 0, "metrics": {}, "n_selected": 1, "n_malicious": 0}
    line |= {"refused": [], "malicious": [], "seconds": {}, "diagnostics": {}}
    (tmp_path / "rounds.jsonl").write_text(json.dumps(line) + "\n")
    tracker = handle._start("tensorboard", tmp_path)
    tracker.process.stdin.close()
    assert tracker.process.wait(60) != 0


def test_a_missing_package_is_one_sentence_before_anything_is_written(
    tables, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(handle.importlib.util, "find_spec", lambda name: None)
    write_json(Path("c.json"), tables(SHORT))
    assert main(["run", "--config", "c.json", "--out", "r", "--trackers", "wandb", "mlflow"]) == 2
    assert capsys.readouterr().err == (
        "drop: settings.trackers = wandb: its package is not installed; "
        "pip install -e '.[wandb]' does that.\n"
    )
    assert not Path("r").exists()


def test_a_folder_called_wandb_is_not_the_package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(handle.TRACKERS, "of_nobody", "x:Y")
    (tmp_path / "of_nobody").mkdir()
    with pytest.raises(ConfigError, match="of_nobody: its package is not installed"):
        trackers.require(["of_nobody"], tmp_path)


def test_trackers_need_a_run_directory(tables, odd):
    odd("Notes")
    with pytest.raises(ConfigError, match="trackers read the run directory"):
        experiment.run(resolve.experiment(tables(SHORT)))
