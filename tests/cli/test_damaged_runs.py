"""Folders of runs that somebody damaged: every command answers, in one sentence where it cannot."""

import json
import os
import shutil

import pytest

from entity.cli import console, main
from entity.experiment import run
from entity.setup import resolve

WHOLE = {
    "mta": 0.5,
    "asr": 0.1,
    "selected": [0],
    "malicious": [],
    "refused": [],
    "seconds": {"train": 1.0},
}
BIG = "9" * 5000
LONG = "9" * 400


def _line(number, **values):
    return json.dumps({"round": number, **WHOLE, **values}) + "\n"


TEXTS = {
    "nothing": "",
    "a text": "hello\n",
    "a list": "[1, 2]\n",
    "a NUL": "\0\0\0",
    "no UTF-8": b"\xff\xfe\x80",
    "deep lists": "[" * 100_000,
    "deep tables": '{"a":' * 100_000,
    "levels that parse": '{"round": 1, "a": ' + "[" * 900 + "]" * 900 + "}\n",
    "a long number": f'{{"round": {BIG}, "state": {BIG}}}\n',
    "a number no float holds": f'{{"round": 1, "mta": {LONG}, "asr": 0, "seconds": {{}}}}\n',
    "a round alone": '{"round": 1}\n',
    "a later round alone": '{"round": 2}\n',
    "half a surrogate": '{"name": "\\ud800", "round": 1, "state": "\\ud800"}\n',
}
LINES = {
    "a round alone after a whole one": _line(1) + '{"round": 2}\n',
    "texts for numbers": _line(1, mta="x", seconds={"train": "y"}) + _line(2),
    "lists for numbers": _line(1, mta=[], asr={}, seconds=[]) + _line(2),
    "tables for lists": _line(1, selected={}, refused=3, malicious="x") + _line(2),
    "a round that is no number": _line([1]) + _line("2"),
    "a round of a fraction": _line(1.5) + _line(1e300),
    "true for a round": _line(True),
}


def _make(kind):
    def make(path):
        path.unlink(missing_ok=True)
        if kind == "a folder":
            path.mkdir()
        elif kind == "a pipe":
            os.mkfifo(path)
        elif kind == "a link to nothing":
            path.symlink_to("nowhere")
        elif kind == "a link to a pipe":
            os.mkfifo(path.with_name("pipe"))
            path.symlink_to("pipe")
        else:
            content = {**TEXTS, **LINES}[kind]
            path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return make


PLACES = ("a folder", "a pipe", "a link to nothing", "a link to a pipe")
CASES = [
    *((name, kind) for name in ("config.json", "summary.json") for kind in (*PLACES, *TEXTS)),
    *(("rounds.jsonl", kind) for kind in (*PLACES, *TEXTS, *LINES)),
    *((".lock", kind) for kind in PLACES),
    *((name, kind) for name in ("checkpoint", "artifacts") for kind in ("a pipe", "a text")),
    *(("checkpoint/round_0002.json", kind) for kind in (*PLACES, *TEXTS)),
    *(("checkpoint/round_0002.safetensors", kind) for kind in (*PLACES, "nothing", "a text")),
    *(("artifacts/round_0002.safetensors", kind) for kind in (*PLACES, "nothing", "a text")),
    *(("error.txt", kind) for kind in (*PLACES, "no UTF-8")),
]
ALIKE = ("a NUL", "deep tables", "a later round alone", "a link to a pipe")
"""Kinds that come to the same as another one nearly everywhere."""
COMMANDS = {
    "resume": ["run", "--quiet", "--resume", "RUN", "--rounds", "3"],
    "watch": ["watch", "--once", "RUN"],
    "results": ["results", "."],
    "csv": ["results", ".", "--format", "csv", "--out", "all.csv"],
    "report": ["report", "RUN", "--out", "page.html"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tables):
    folder = tmp_path_factory.mktemp("runs") / "RUN"
    run(resolve.experiment(tables({"client.ADR": 0.02})), folder)
    (folder / "artifacts").mkdir(exist_ok=True)
    return folder


@pytest.fixture
def damaged(finished, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(finished, tmp_path / "RUN")


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        pytest.param(
            *(name, kind),
            id=f"{name} is {kind}",
            marks=[pytest.mark.slow] if name.startswith("checkpoint/") or kind in ALIKE else [],
        )
        for name, kind in CASES
    ],
)
def test_every_command_answers_to_a_damaged_run(name, kind, damaged, monkeypatch, capfd):
    path = damaged / name
    if path.is_dir():
        shutil.rmtree(path)
    _make(kind)(path)
    for command, words in COMMANDS.items():
        monkeypatch.setattr(console, "out", console.plain(width=100))
        monkeypatch.setattr(console, "err", console.plain(width=100, stderr=True))
        if command == "resume":
            left = damaged.with_name("left")
            shutil.copytree(damaged, left, symlinks=True, ignore=_pipes)
            _make_pipes(damaged, left)
            words = [word.replace("RUN", "left") for word in words]
            code = main(words)
            shutil.rmtree(left)
        else:
            code = main(words)
        said = capfd.readouterr()
        assert code in (0, 1, 2), command
        assert "Traceback" not in said.err, command
        if code == 2:
            assert "drop: " in said.err


def _pipes(folder, names):
    import stat

    return [n for n in names if stat.S_ISFIFO(os.lstat(os.path.join(folder, n)).st_mode)]


def _make_pipes(source, target):
    for path in source.rglob("*"):
        if path.is_fifo() and not path.is_symlink():
            os.mkfifo(target / path.relative_to(source))
