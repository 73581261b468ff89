"""Output in encodings that lack our letters, on devices that are full, and of names as they are."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from entity.cli import console, main
from entity.cli.streams import take_any_letter
from entity.record.json_files import write_json

LIST = [sys.executable, "-m", "entity.cli", "list"]


def printed(encoding, *words, **more):
    env = {**os.environ, "PYTHONIOENCODING": encoding, "COLUMNS": "80", **more}
    return subprocess.run([*LIST, *words], env=env, capture_output=True, check=False, timeout=120)


@pytest.mark.slow
def test_a_terminal_that_is_not_utf_8_gets_the_nearest_letters():
    answer = printed("ascii")
    assert answer.returncode == 0, answer.stderr[-2000:]
    said = answer.stdout.decode("ascii")
    assert "defenses" in said
    assert max(map(len, said.splitlines())) <= 80


def test_letters_are_replaced_by_the_nearest_of_ascii_one_by_one(monkeypatch):
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, "ascii", write_through=True))
    take_any_letter()
    print("é ± ≥ 95 \N{EN DASH} ━▂█ 漢 \udcff")
    assert bytes_.getvalue() == b"e ~ > 95 - -_# ? \xff\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no real /dev/full")
@pytest.mark.parametrize("words", [["models"], pytest.param(["--json"], marks=pytest.mark.slow)])
def test_a_full_device_is_one_sentence(words):
    with open("/dev/full", "wb") as full:
        answer = subprocess.run(
            [*LIST, *words], stdout=full, stderr=subprocess.PIPE, check=False, timeout=120
        )
    assert answer.returncode == 1
    assert answer.stderr == b"drop: No space left on device.\n"


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A finished run whose folder and name rich would take for an emoji and for markup."""
    monkeypatch.chdir(tmp_path)
    folder = Path("a:x:b[red]")
    folder.mkdir()
    write_json(folder / "config.json", {"name": "n:boom:[bold]", "federation": {"rounds": 1}})
    write_json(folder / "summary.json", {"state": "finished"})
    (folder / "rounds.jsonl").write_text("")
    return folder


@pytest.mark.parametrize("terminal", [False, True])
def test_names_and_paths_are_printed_as_they_are(odd, monkeypatch, capsys, terminal):
    how = {"force_terminal": True, "no_color": True} if terminal else {}
    monkeypatch.setattr(console, "out", console.plain(width=160, **how))
    monkeypatch.setattr(console, "err", console.plain(width=160, stderr=True))
    assert main(["results", ".", "--format", "md", "--out", "a:x:b.md"]) == 0
    assert main(["results", "."]) == 0
    assert main(["watch", "--once", str(odd)]) == 0
    assert main(["report", str(odd), "--out", "p:x:.html"]) == 0
    assert main(["run", "--config", "c:x:[red].json"]) == 2
    said = capsys.readouterr()
    for name in ("a:x:b.md", "n:boom:[bold]", "p:x:.html"):
        assert name in said.out
    assert "c:x:[red].json" in said.err


def test_the_module_s_own_consoles_are_plain(monkeypatch, capsys):
    for stream in (console.out, console.err):
        with stream.capture() as captured:
            stream.print("a:x:b [red]c[/]")
        assert captured.get() == "a:x:b [red]c[/]\n"


def test_watch_has_a_space_before_a_share_of_all(tmp_path, capsys, monkeypatch):
    write_json(tmp_path / "config.json", {"federation": {"rounds": 1}})
    (tmp_path / "rounds.jsonl").write_text('{"round": 1, "mta": 1.0, "asr": 1.0}\n')
    write_json(tmp_path / "summary.json", {"state": "finished"})
    monkeypatch.setattr(console, "out", console.plain(width=100))
    assert main(["watch", "--once", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.count("MTA 100.0%") == said.count("ASR 100.0%") == 2
