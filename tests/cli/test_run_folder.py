"""Runs without --out: each has a folder of its own, however many start at once."""

import json
import threading

import pytest

from entity.cli import main
from entity.cli.run import own_folder
from entity.record.atomic import CannotWrite


def test_runs_that_start_at_once_have_names_of_their_own(tmp_path):
    """Nobody has made a folder before all have asked for one."""
    together, found = threading.Barrier(9), []

    def start():
        together.wait()
        with own_folder(tmp_path / "runs" / "mine") as folder:
            (folder / "config.json").touch()
            found.append(folder.name)

    threads = [threading.Thread(target=start) for _ in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["mine", *(f"mine-{number}" for number in range(2, 10))]


def test_a_name_is_taken_while_its_run_still_loads_its_data(tmp_path):
    with own_folder(tmp_path / "mine") as first, own_folder(tmp_path / "mine") as second:
        assert (first.name, second.name) == ("mine", "mine-2")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_of_a_run_that_is_refused(tables, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps(tables({"dataset": "cifar10", "client.attack": None})))
    assert main(["run", "--config", str(config), "--data_root", str(tmp_path / "none")]) == 2
    assert "cifar" in capsys.readouterr().err.lower()
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.json"]


def test_links_and_files_of_the_name_are_left_alone(tmp_path):
    (tmp_path / "mine").symlink_to(tmp_path / "gone")
    (tmp_path / "mine-2").touch()
    with own_folder(tmp_path / "mine") as folder:
        assert folder.name == "mine-3"


def test_a_place_that_is_no_folder_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    for name in ("file", "link"):
        folder = own_folder(tmp_path / name / "mine")
        with pytest.raises(CannotWrite, match=f"{name}: cannot be written"), folder:
            pass
