"""`drop watch`: a run seen from its record alone, while it grows and after it has ended."""

import fcntl
import io
import json
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from entity.cli import console, main
from entity.record.follow import Tail
from entity.record.json_files import write_json
from entity.results.watch import FollowedRun, refused_of, sparkline

CONFIG = {
    "name": "n" * 100,
    "dataset": "mnist5k",
    "model": "cnn",
    "client": {"attack": {"type": "badnets"}},
    "server": {"defense": {"type": "drop"}},
    "federation": {"rounds": 40},
}


def line(number, **values):
    facts = {"mta": 0.9, "asr": None, "refused": [], "malicious": [], "seconds": {"train": 2.0}}
    return {"round": number, **facts, **values}


@pytest.fixture
def run(tmp_path):
    """A run directory, its lock as a running process has it, and a way to add rounds."""

    class Run:
        folder = tmp_path / "r"
        lock = None

        def add(self, *lines):
            with (self.folder / "rounds.jsonl").open("a") as file:
                file.writelines(json.dumps(each) + "\n" for each in lines)

        def end(self, state):
            write_json(self.folder / "summary.json", {"state": state})
            self.lock.close()

    run = Run()
    run.folder.mkdir()
    write_json(run.folder / "config.json", CONFIG)
    run.add()
    run.lock = (run.folder / ".lock").open("a")
    fcntl.flock(run.lock, fcntl.LOCK_EX)
    yield run
    run.lock.close()


@pytest.fixture
def terminal(monkeypatch):
    screen = Console(file=io.StringIO(), force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(console, "out", screen)
    return screen.file


def test_every_round_is_read_once_whatever_is_half_written_or_cut_off(tmp_path):
    path, tail = tmp_path / "rounds.jsonl", Tail(tmp_path)
    assert list(tail) == []  # no file yet
    path.write_text('{"round": 1}\n{"round": 2')
    assert [each["round"] for each in tail] == [1]
    path.write_text('{"round": 1}\n{"round": 2}\n{"round": 3}\n')
    assert [each["round"] for each in tail] == [2, 3]
    path.write_text('{"round": 1}\n{"round": 2}\n')  # a resume goes back to a checkpoint
    assert list(tail) == []
    path.write_text('{"round": 1}\n{"round": 2}\n{"round": 3}\n{"round": 4}\n')
    assert [each["round"] for each in tail] == [4]


@pytest.mark.parametrize("longer", [-1, 0, 5])
def test_rounds_that_a_resume_writes_again_hide_no_later_one(tmp_path, longer):
    """It may have come past what was read before anybody looks again."""
    path, tail = tmp_path / "rounds.jsonl", Tail(tmp_path)

    def written(seconds, rounds):
        made = ({"round": n, "seconds": "1" * seconds} for n in range(1, rounds + 1))
        path.write_text("".join(json.dumps(each) + "\n" for each in made))

    written(20, 7)
    assert len(list(tail)) == 7
    written(20 + longer, 12)
    assert [each["round"] for each in tail] == [8, 9, 10, 11, 12]
    assert tail.damage == ""
    written(20 + 2 * longer, 13)
    assert [each["round"] for each in tail] == [13]


def test_time_left_is_that_of_the_last_rounds(run):
    run.add(line(1, seconds={"train": 500.0}), *(line(n) for n in range(2, 12)))
    watched = FollowedRun(run.folder)
    watched.look()
    # 29 rounds of 2 s, of which the present one may be under way for up to 2 s
    assert 56 <= watched.left <= 58


def test_the_state_is_that_of_the_process_not_only_of_the_files(run):
    watched = FollowedRun(run.folder)
    write_json(run.folder / "summary.json", {"state": "running"})
    watched.look()
    assert watched.state == "running"
    run.lock.close()  # as the system does for a process that is killed
    watched.look()
    assert (watched.state, watched.left) == ("killed", None)
    run.end("interrupted")
    watched.look()
    assert watched.state == "interrupted"
    (run.folder / "error.txt").write_text("Traceback\nValueError: odd\n\n")
    watched.look()
    assert (watched.state, watched.reason) == ("failed", "ValueError: odd")
    run.end("finished")
    watched.look()
    assert watched.state == "finished"


def test_away_from_a_terminal_rounds_are_lines_and_the_end_of_the_run_is_that_of_the_command(
    run, capsys, monkeypatch
):
    run.add(line(1, refused=[3, 4], malicious=[4], asr=0.5))

    def pause(seconds):
        assert seconds == 0.25
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("looked once too often"))
        run.add(line(2))
        run.end("finished")

    monkeypatch.setattr(time, "sleep", pause)
    assert main(["watch", str(run.folder), "--every", "0.25"]) == 0
    title, first, second, end = capsys.readouterr().out.splitlines()
    assert title.endswith("n: mnist5k, cnn, drop against badnets")
    assert first.startswith("  1/40  MTA  90.0%  ASR  50.0%  refused 2: 3 4*  left 01:1")
    assert second == "  2/40  MTA  90.0%  ASR      -  refused 0"
    assert end == "finished: mean of last 2 of 2 rounds: MTA 90.0%, ASR 50.0%"


def test_a_hundred_percent_stands_apart_from_its_name(run, capsys):
    run.add(line(1, mta=1.0, asr=1.0))
    run.end("finished")
    assert main(["watch", str(run.folder)]) == 0
    end = capsys.readouterr().out.splitlines()[-1]
    assert end == "finished: mean of last 1 of 1 rounds: MTA 100.0%, ASR 100.0%"


def test_once_shows_a_running_run_and_ends(run, capsys):
    run.add(line(1), line(2))
    assert main(["watch", str(run.folder), "--once"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [words.split("  ")[0] for words in lines[1:]] == ["", "running: round 2 of 40 is done"]
    assert lines[1].startswith("  2/40")


def test_a_terminal_of_80_columns_is_enough(run, terminal):
    many = list(range(100, 150))
    run.add(*(line(n, asr=n / 40, refused=many, malicious=many) for n in range(1, 41)))
    run.end("finished")
    assert main(["watch", str(run.folder), "--once"]) == 0
    shown = terminal.getvalue().splitlines()
    assert max(map(len, shown)) <= 80
    assert "round 40/40  finished" in shown[1]
    assert shown[3].startswith("ASR 100.0%  ▁▁▁▁▂▂▂▂▂▃")
    assert [row.split()[0] for row in shown[-9:-1] if row.strip()] == [*map(str, range(34, 41))]
    assert "50: 100* 101*" in shown[-3]
    assert shown[-3].rstrip().endswith("...")


def test_on_a_terminal_the_end_of_the_run_is_that_of_the_command(run, terminal, monkeypatch):
    def pause(seconds):
        monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("looked once too often"))
        run.add(line(1), line(2))
        run.end("finished")

    monkeypatch.setattr(time, "sleep", pause)
    assert main(["watch", str(run.folder)]) == 0
    assert "round 2/40  finished" in terminal.getvalue()
    assert "finished: mean" in terminal.getvalue().splitlines()[-1]


def test_a_run_that_was_stopped_says_how_to_go_on(run, capsys):
    run.add(line(1))
    run.end("interrupted")
    assert main(["watch", str(run.folder)]) == 1
    end = capsys.readouterr().out.splitlines()[-1]
    assert end == (f"interrupted after round 1 of 40; to go on: drop run --resume {run.folder}")


def test_what_is_no_run_is_one_sentence(run, tmp_path, capsys):
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == (
        f"drop: {tmp_path / 'none'}: holds no run, as it has no config.json.\n"
    )
    assert main(["watch", str(tmp_path)]) == 2
    assert capsys.readouterr().err.endswith("no config.json. Runs in it: r.\n")
    (run.folder / "config.json").write_text("{")
    assert main(["watch", str(run.folder)]) == 2
    assert "config.json: cannot be read (no JSON: " in capsys.readouterr().err
    (run.folder / "config.json").unlink()
    (run.folder / "config.json").symlink_to("/dev/zero")
    assert main(["watch", str(run.folder)]) == 2
    said = capsys.readouterr().err
    assert said.endswith("config.json: cannot be read (Not a regular file).\n")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"round": 1, "mta": 0.5}\nx\n', "rounds.jsonl is damaged after round 1"),
        (b'{"round": 1, "mta": "0.5"}\n', 'round 1: mta = "0.5" is no number'),
        (None, "rounds.jsonl cannot be read (Is a directory)"),
    ],
)
def test_a_damaged_record_is_said_to_be_damaged(run, capsys, content, said):
    run.end("finished")
    path = run.folder / "rounds.jsonl"
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_bytes(content)
    assert main(["watch", str(run.folder)]) == 0
    assert f"{run.folder}: {said}" in capsys.readouterr().err
    if content is not None:  # a line that is being written is not damage
        path.write_bytes(b'{"round": 1, "mta": 0.5}\n{"rou')
        assert main(["watch", str(run.folder)]) == 0
        assert "rounds.jsonl" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_in_another_process_is_followed_to_its_end(tables, tmp_path, capsys):
    write_json(tmp_path / "c.json", tables({"client.ADR": 0.05, "federation.rounds": 4}))
    words = ["run", "--config", "c.json", "--out", "r", "--quiet"]
    python = [sys.executable, "-m", "entity.cli"]
    with subprocess.Popen([*python, *words], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not (tmp_path / "r/config.json").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert main(["watch", str(tmp_path / "r")]) == 0
        assert process.wait() == 0
    rounds = [json.loads(each) for each in (tmp_path / "r/rounds.jsonl").read_text().splitlines()]
    lines = capsys.readouterr().out.splitlines()
    assert [row.split("/")[0].strip() for row in lines[1:-1]] == ["1", "2", "3", "4"]
    assert f"MTA {100 * rounds[-1]['mta']:5.1f}%" in lines[-2]
    assert lines[-1].startswith("finished: ")


@pytest.mark.parametrize(
    ("values", "width", "drawn"),
    [
        ([], 5, ""),
        ([None, None, 1.0], 1, "█"),
        ([0.0, 1.0] * 50, 10, "▅" * 10),
        ([-1.0, 2.0], 5, "▁█"),
    ],
)
def test_sparklines(values, width, drawn):
    assert sparkline(values, width) == drawn


def test_refused_clients_fit_whatever_their_names():
    assert len(refused_of({"refused": ["x" * 50], "malicious": []}, 10)) <= 10
    assert refused_of({"refused": [], "malicious": [1]}, 10) == "0"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text("ab[]\n"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=2),
    max_leaves=4,
)
_FACTS = ("mta", "asr", "refused", "malicious", "seconds", "round")
_LINES = st.dictionaries(st.sampled_from(_FACTS), _JSON)


@settings(max_examples=60, deadline=None)
@given(
    config=_JSON | st.fixed_dictionaries({"name": _JSON, "federation": _JSON}),
    lines=st.lists(_LINES.map(lambda facts: {"round": 1, **facts}) | _JSON, max_size=3),
    summary=_JSON,
    once=st.booleans(),
)
def test_whatever_the_files_hold_there_is_no_traceback(
    tmp_path_factory, config, lines, summary, once
):
    folder = tmp_path_factory.getbasetemp() / "odd"
    folder.mkdir(exist_ok=True)
    for name, content in (("config", [config]), ("summary", [summary]), ("rounds", lines)):
        text = "".join(json.dumps(each) + "\n" for each in content)
        (folder / f"{name}.json{'l' if name == 'rounds' else ''}").write_text(text)
    assert main(["watch", str(folder), *["--once"] * once]) in (0, 1)
