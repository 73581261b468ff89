"""The examples, as a user runs them: another folder, the installed command, a sweep."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from entity.results import store

EXAMPLES = Path(__file__).parents[2] / "examples"


def drop(*words, cwd):
    """Run the installed command, whose search path has neither the folder nor the examples."""
    command = shutil.which("drop", path=str(Path(sys.executable).parent))
    assert command is not None
    done = subprocess.run(
        [command, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.mark.slow
def test_own_defense_attack_trigger_data_and_model_in_one_sweep(tmp_path):
    shutil.copytree(EXAMPLES / "own", tmp_path / "mine")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    out = tmp_path / "runs"
    drop("sweep", "../mine/grid.yaml", "--out", out, "--jobs", 2, "--where",
         "data=waves or defense.type=norm_gate", "--data_root", tmp_path,
         cwd=elsewhere)  # fmt: skip
    runs = {run.path.name.rsplit("-seed", 1)[0]: run for run in store.collect([out])}
    assert len(runs) == 6
    assert all(run.finished for run in runs.values())
    for name, run in runs.items():
        data, defense, attack = name.split("-")
        expected = {"digits": {"frame.py"}, "waves": {"waves.py"}}[data]
        expected |= {f"{used}.py" for used in (defense, attack) if used in ("norm_gate", "loud")}
        found = {Path(entry.partition("#")[0]).name for entry in run.config["plugins"]}
        assert found == expected
    # Updates three times as long as others are what the gate is for.
    assert runs["waves-norm_gate-loud"].facts["tpr"] == 1.0
    assert runs["waves-norm_gate-loud"].facts["fpr"] == 0.0
    assert runs["waves-undefended-loud"].facts["tpr"] == 0.0
    assert (runs["waves-undefended-loud"].facts["asr"] or 0) > 0.3
    assert (runs["waves-norm_gate-loud"].facts["asr"] or 0) < 0.2
    again = drop("sweep", "../mine/grid.yaml", "--out", out, "--dry-run", "--where", "data=waves",
                 "--data_root", tmp_path, cwd=elsewhere)  # fmt: skip
    assert "4 runs: 4 finished" in again


@pytest.mark.slow
def test_the_text_task_from_another_folder(tmp_path):
    config = EXAMPLES / "text/books.yaml"
    drop("run", "--config", config, "--rounds", 2, "--defense.type", "droplet", "--victim_class",
         "constitution", "--out", "run", "--data_root", tmp_path, cwd=tmp_path)  # fmt: skip
    (run,) = store.collect([tmp_path / "run"])
    assert run.finished
    assert run.fields["client.attack.victim_class"] == 2
