import json
import math
import os
import re

import pytest
import torch
from safetensors.torch import load_file

from entity.config.schema import ConfigError
from entity.record import directory as record_module
from entity.record.atomic import CannotWrite
from entity.record.directory import Record, RunExists, refuse_nested
from entity.record.json_files import write_json


def line(number, **values):
    return {"round": number, "mta": 0.5, "asr": math.nan, "seconds": {"train": 1.0}, **values}


def lines_of(folder):
    return [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]


def test_a_round_is_on_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync
    monkeypatch.setattr(record_module.os, "fsync", lambda fd: (synced.append(fd), fsync(fd)))
    record = Record(tmp_path / "a" / "b", {"seed": 1})
    before = len(synced)
    record.append(line(1), {})
    assert len(synced) > before
    assert lines_of(record.folder) == [{**line(1), "asr": None}]
    record.append(line(2), {})
    assert [one["round"] for one in lines_of(record.folder)] == [1, 2]


def test_what_json_has_no_word_for_becomes_null_everywhere(tmp_path):
    record = Record(tmp_path, {"a": math.inf})
    record.append(line(1, weights={3: math.nan, 4: 0.5}, list=[-math.inf, (1, math.nan)]), {})
    text = (tmp_path / "rounds.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    assert lines_of(tmp_path)[0]["weights"] == {"3": None, "4": 0.5}
    assert lines_of(tmp_path)[0]["list"] == [None, [1, None]]
    assert record.rounds == lines_of(tmp_path)  # memory and disk say the same
    assert json.loads((tmp_path / "config.json").read_text()) == {"a": None}


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_was(tmp_path):
    Record(tmp_path, {"seed": 1}).append(line(1), {})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(RunExists, match=r": already holds a run; .* or resume or overwrite"):
        Record(tmp_path, {"seed": 2})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_run_without_a_finished_round_is_replaced(tmp_path):
    """As after an error in somebody's own code in the first round."""
    Record(tmp_path, {"seed": 1})
    Record(tmp_path, {"seed": 2})
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 2}


def test_runs_do_not_lie_within_one_another(tmp_path):
    Record(tmp_path / "sweep" / "one", {})
    for folder in (tmp_path / "sweep" / "two", tmp_path / "sweep" / "one"):
        refuse_nested(folder)
    for folder in (tmp_path / "sweep", tmp_path):
        with pytest.raises(ConfigError, match=r"is a folder of runs, such as .*one, and cannot"):
            refuse_nested(folder)
    for folder in ("in", "in/deeper"):
        with pytest.raises(ConfigError, match=r"lies in the folder of a run, .*one; choose"):
            refuse_nested(tmp_path / "sweep" / "one" / folder)


def test_overwriting_leaves_nothing_of_the_old_run_and_touches_nothing_else(tmp_path):
    old = Record(tmp_path, {"seed": 1})
    old.append(line(1), {"generated": torch.zeros(2)})
    old.append(line(2), {})
    old.summarise({"state": "finished"})
    (tmp_path / "notes.txt").write_text("mine")
    Record(tmp_path, {"seed": 2}, overwrite=True)
    assert lines_of(tmp_path) == []
    assert json.loads((tmp_path / "config.json").read_text()) == {"seed": 2}
    assert not (tmp_path / "summary.json").exists()
    assert not list(tmp_path.glob("artifacts/*"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_things_is_used(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Record(tmp_path, {})
    assert (tmp_path / "notes.txt").exists()


def test_a_place_that_cannot_be_a_folder_is_a_config_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(CannotWrite, match=rf"^{re.escape(str(folder))}: cannot be written \("):
            Record(folder, {})


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = Record(None, {})
    record.append(line(1), {"generated": torch.zeros(2)})
    record.summarise({})
    assert record.rounds == [{**line(1), "asr": None}]
    assert not list(tmp_path.iterdir())


def test_artifacts_are_safetensors_named_by_round_and_there_before_the_line(tmp_path):
    record = Record(tmp_path, {})
    pixels = torch.arange(12, dtype=torch.uint8).view(3, 4).T  # not contiguous
    record.append(line(7), {"generated": pixels, "linkage": torch.ones(2, 4)})
    found = load_file(tmp_path / "artifacts" / "round_0007.safetensors")
    assert (found["generated"] == pixels).all()
    assert set(found) == {"generated", "linkage"}


def test_whole_files_are_written_aside_so_that_a_crash_keeps_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_json(path, {"state": "running"})

    def crash(fd):
        raise KeyboardInterrupt

    monkeypatch.setattr(record_module.os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"state": "finished", "long": "x" * 10_000})
    assert json.loads(path.read_text()) == {"state": "running"}
