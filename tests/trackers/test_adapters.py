"""The real adapters, each of whose packages may be missing: what they wrote is read back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from entity import experiment
from entity.setup import resolve
from entity.setup.resume import recorded

SHORT = {"client.ADR": 0.05, "federation.rounds": 3, "settings.checkpoint_every": 1}


@pytest.fixture
def tracked(tables, tmp_path, monkeypatch):
    """Run with a tracker, interrupted after round 2 and resumed."""
    monkeypatch.chdir(tmp_path)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)

    def run(name):
        config = resolve.experiment(tables({**SHORT, "settings.trackers": [name]}))

        def stop(line):
            if line["round"] == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            experiment.run(config, Path("runs/r"), on_round=stop)
        result = experiment.run(recorded(Path("runs/r")), Path("runs/r"), resume=True)
        words = Path(f"runs/r/trackers/{name}.log").read_text()
        assert "Traceback" not in words, words
        assert [each.name for each in Path().iterdir()] == ["runs"]  # no litter
        return result

    return run


def test_tensorboard_shows_the_record(tracked):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    result = tracked("tensorboard")
    events = reader.EventAccumulator("runs/r/trackers/tensorboard").Reload()
    for name in ("mta", "asr"):
        shown = [(event.step, event.value) for event in events.Scalars(name)]
        assert shown == [(x["round"], pytest.approx(x[name])) for x in result.rounds]
    assert [event.step for event in events.Scalars("seconds/train")] == [1, 2, 3]
    texts = {tag: event.tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
             for event in events.Tensors(tag)[-1:]}  # fmt: skip
    assert '"client.lr": 0.05' in texts["config"]
    assert '"state": "finished"' in texts["summary"]


def test_wandb_stays_offline_and_has_one_run(tracked):
    pytest.importorskip("wandb")
    tracked("wandb")
    ids = Path("runs/r/trackers/id").read_text()
    folders = sorted(each.name for each in Path("runs/r/trackers/wandb").glob("offline-run-*"))
    assert folders
    assert all(name.endswith(f"-{ids}") for name in folders)


def test_mlflow_has_one_run_with_every_round(tracked):
    pytest.importorskip("mlflow")
    result = tracked("mlflow")
    # In a process of its own: mlflow leaves threads and handlers behind.
    code = (
        "from mlflow.tracking import MlflowClient as C; c = C('sqlite:///runs/mlflow.db');"
        "e = c.get_experiment_by_name('drop-mnist5k').experiment_id;"
        "[r] = c.search_runs([e]); print(r.info.status, r.data.params['client.lr'],"
        "[(m.step, m.value) for m in c.get_metric_history(r.info.run_id, 'mta')])"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ
    )
    history = [(line["round"], line["mta"]) for line in result.rounds]
    assert asked.stdout.split("\n")[-2] == f"FINISHED 0.05 {history}"
