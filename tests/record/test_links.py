"""Symbolic links in run folders: nothing outside is emptied, written or deleted."""

import os
import subprocess
import sys

import pytest

from entity.config.schema import ConfigError
from entity.experiment import run
from entity.record.atomic import write_atomically
from entity.record.directory import Record
from entity.record.links import FOLDERS, open_own
from entity.record.lock import is_locked, locked


@pytest.fixture
def elsewhere(tmp_path):
    """A folder beside the run's, with a file that is none of the run's business."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "round_0001.safetensors").write_text("precious")
    (folder / "file").write_text("precious")
    return folder


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def is_whole(elsewhere):
    return [path.read_text() for path in elsewhere.iterdir()] == ["precious"] * 2


def test_a_lock_that_is_a_link_empties_nothing(folder, elsewhere):
    (folder / ".lock").symlink_to(elsewhere / "file")
    with pytest.raises(ConfigError, match=r"\.lock: is a symbolic link"), locked(folder):
        pass
    assert is_whole(elsewhere)


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("resume", [False, True])
def test_folders_that_are_links_are_left_alone(folder, elsewhere, experiment, name, resume):
    config = experiment()
    if resume:
        run(config, folder)
        if (folder / name).exists():
            (folder / name).rename(folder / f"{name}-old")
        config = experiment({"federation.rounds": 3})
    (folder / name).symlink_to(elsewhere)
    how = {"resume": True} if resume else {"overwrite": True}
    with pytest.raises(ConfigError, match=rf"{name}: is a symbolic link") as refusal:
        run(config, folder, **how)
    assert "put the file or folder itself there" in str(refusal.value)
    assert is_whole(elsewhere)


@pytest.mark.parametrize("name", ["rounds.jsonl", "summary.json.part", "config.json.part"])
def test_files_that_are_links_are_refused(folder, elsewhere, experiment, name):
    (folder / name).symlink_to(elsewhere / "file")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        run(experiment(), folder)
    assert is_whole(elsewhere)


def test_a_link_inside_of_artifacts_is_refused(folder, elsewhere, experiment):
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / "round_0001.safetensors.part").symlink_to(elsewhere / "file")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        run(experiment(), folder)
    assert is_whole(elsewhere)


def test_a_run_folder_may_itself_be_a_link(tmp_path, experiment):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "large disk")
    assert run(experiment(), tmp_path / "run").summary["state"] == "finished"
    assert (tmp_path / "large disk" / "summary.json").exists()


def test_an_atomic_write_and_an_append_follow_no_link(folder, elsewhere):
    (folder / "x.json.part").symlink_to(elsewhere / "file")
    write_atomically(folder / "x.json", b"new")
    assert (folder / "x.json").read_bytes() == b"new"
    (folder / "y").symlink_to(elsewhere / "file")
    with pytest.raises(OSError, match="symbolic link"):
        open_own(folder / "y", "a")
    record = Record(folder, {})
    (folder / "rounds.jsonl").unlink()
    (folder / "rounds.jsonl").symlink_to(elsewhere / "file")
    with pytest.raises(OSError, match="symbolic link"):
        record.append({"round": 1}, {})
    assert is_whole(elsewhere)


@pytest.mark.timeout(20)
def test_a_lock_that_is_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / ".lock")
    assert is_locked(folder) is None
    with pytest.raises(ConfigError, match="cannot be written"), locked(folder):
        pass


def test_a_system_without_file_locks_is_told_in_a_sentence():
    program = (
        "import sys; sys.modules['fcntl'] = None; import entity.defenses; import entity.record"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120
    )
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1] == (
        "ImportError: Runs are locked by fcntl, which Windows has not: use Linux, macOS, or WSL 2 "
        "on Windows."
    )
