"""A file that may not grow, as on a full disk: one sentence, exit code 1, and how to go on."""

import errno
import json
import resource
from contextlib import contextmanager

import pytest

from entity.cli import main
from entity.config.full_disk import DiskFull
from entity.dataset import DATASETS
from entity.experiment import run
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.report.page import write_page


@contextmanager
def files_of_at_most(size):
    """Let no file of this process grow beyond a size; Python ignores the signal for it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(scope="module")
def config(tables, tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.json"
    path.write_text(json.dumps(tables({"client.ADR": 0.05, "settings.checkpoint_every": 1})))
    return path


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run(experiment({"client.ADR": 0.05, "settings.checkpoint_every": 1}), folder)
    return folder


def said(capsys):
    """Return what went to standard error, unfolded."""
    return " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("size", [3_000, 20_000])
def test_a_run_says_so_once_and_can_go_on(config, finished, tmp_path, capsys, size):
    """At 3,000 bytes the record is full, at 20,000 the checkpoint, which safetensors writes."""
    out = tmp_path / "run"
    with files_of_at_most(size):
        code = main(["run", "--config", str(config), "--out", str(out), "--quiet"])
    text = said(capsys)
    assert code == 1
    assert f"drop: {out}: cannot be written (File too large)." in text
    assert text.count("cannot be written") == 1
    assert "Traceback" not in text
    assert not list(out.rglob("*.part"))
    assert f"To go on: drop run --resume {out}" in text
    assert main(["run", "--resume", str(out), "--quiet"]) == 0
    for name in ("model.safetensors", "config.json"):
        assert (out / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_that_cannot_begin_says_so(config, tmp_path, capsys):
    out = tmp_path / "run"
    with files_of_at_most(100):
        assert main(["run", "--config", str(config), "--out", str(out), "--quiet"]) == 1
    text = said(capsys)
    assert f"drop: {out}: cannot be written (File too large)." in text
    assert "Traceback" not in text
    assert "To go on" not in text
    assert not (out / "config.json").exists()


def test_ctrl_c_stays_one_when_nothing_can_be_written(experiment, tmp_path, caplog):
    limit = files_of_at_most(3_000)

    def stop(line):
        limit.__enter__()
        raise KeyboardInterrupt

    config = experiment({"client.ADR": 0.05, "settings.checkpoint_every": 0})
    try:
        with pytest.raises(KeyboardInterrupt) as interrupt:
            run(config, tmp_path, on_round=stop)
    finally:
        limit.__exit__(None, None, None)
    assert interrupt.value.__context__ is None
    assert caplog.messages.count(f"{tmp_path}: cannot be written to the end (File too large)") == 1


def test_a_checkpoint_raises_what_the_system_said(experiment, finished, tmp_path):
    """Safetensors raises an error of its own, which is no OSError."""
    snapshot = Checkpoints(finished, {}, 0).last(9).snapshot
    checkpoints = Checkpoints(tmp_path, {}, 1)
    checkpoints.take(Snapshot(1, snapshot.state))
    before = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    with files_of_at_most(1_000), pytest.raises(OSError, match="File too large") as error:
        checkpoints.take(Snapshot(2, snapshot.state))
    assert error.value.errno == errno.EFBIG
    assert sorted(path.name for path in (tmp_path / "checkpoint").iterdir()) == before


@pytest.mark.parametrize("name", ["table.csv", "table.md"])
def test_a_table_of_results(finished, tmp_path, capsys, name):
    out = tmp_path / name
    with files_of_at_most(10):
        code = main(["results", str(finished), "--format", name[6:], "--out", str(out)])
    assert code == 1
    assert f"drop: {out}: cannot be written (File too large)." in said(capsys)
    assert not list(tmp_path.iterdir())


def test_a_table_of_results_in_parquet(finished, tmp_path, capsys):
    pytest.importorskip("duckdb")
    out = tmp_path / "table.parquet"
    with files_of_at_most(10):
        code = main(["results", str(finished), "--format", "parquet", "--out", str(out)])
    text = said(capsys)
    assert code == 1, text
    assert "cannot be written" in text
    assert "Traceback" not in text


@pytest.mark.parametrize("name", ["page.html", "folder"])
def test_a_report(finished, tmp_path, capsys, name):
    out = tmp_path / name
    with files_of_at_most(10_000):
        assert main(["report", str(finished), "--out", str(out)]) == 1
    assert f"drop: {out}: cannot be written (File too large)." in said(capsys)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_page_from_python(finished, tmp_path):
    with files_of_at_most(10_000), pytest.raises(DiskFull, match="File too large"):
        write_page([finished], tmp_path / "page.html", title="One")


def test_an_app_of_flower(config, tmp_path, capsys):
    out = tmp_path / "app"
    with files_of_at_most(800):
        assert main(["deploy", "init", str(out), "--config", str(config)]) == 1
    assert f"{out}: cannot be written (File too large)." in said(capsys)
    assert not any(out.iterdir())
    assert main(["deploy", "init", str(out), "--config", str(config)]) == 0


def test_a_download(tmp_path, capsys, monkeypatch):
    def full(root):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = DATASETS["cifar10"].files
    monkeypatch.setattr(type(files), "download", property(lambda self: full), raising=False)
    monkeypatch.setattr(type(files), "fetch", property(lambda self: full), raising=False)
    assert main(["data", "fetch", "cifar10", "--data_root", str(tmp_path)]) == 1
    assert "cannot be written (No space left on device)." in said(capsys)
