"""What a sweep shows: plain lines, and a bar on a terminal."""

import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from entity.api import sweep_progress
from entity.api.sweep_progress import SweepDisplay
from entity.config.schema import flatten
from entity.results.store import Run
from entity.setup import resolve
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse
from entity.sweep.runner import Failure


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """Terminals that are asked for are no dumb ones, whatever these tests run in."""
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sweep_progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def cells(tables, tmp_path):
    return expand(parse({"base": tables(), "axes": {"lr": [1, 2, 3, 4]}}, tmp_path), Path("out"))


def done(cell, seconds=10.0, **facts):
    config = cell.config
    known = {"defense": "undefended", "attack": "badnets", "state": "finished", "seconds": seconds}
    facts = {"mta": 0.5, "asr": None, **known, **facts}
    run = Run(cell.folder, facts, dict(flatten(resolve.to_json(config))))
    return replace(cell, done=run)


def running(cell, seconds, rounds=0):
    return SimpleNamespace(cell=cell, seconds=seconds, rounds_run=rounds, round=rounds)


def plain():
    return Console(file=io.StringIO(), width=40)


def lines(console):
    return console.file.getvalue().splitlines()


def test_every_run_is_one_plain_line_and_time_left_is_known_after_the_first(cells, clock):
    console = plain()
    with SweepDisplay(console, total=4, done=0, jobs=1) as show:
        show.tick([running(cells[0], 0.0)], cells[1:])
        assert show.left is None
        show.finished(done(cells[0], mta=0.987, asr=0.05))
        show.tick([running(cells[1], 0.0)], cells[2:])
        assert show.left == pytest.approx(30.0)
        show.finished(done(cells[1]))
    assert lines(console) == [  # longer than the console is wide, and not wrapped
        "1/4  lr1-seed1  MTA  98.7%  ASR   5.0%  took 10 s  left --:--",
        "2/4  lr2-seed1  MTA  50.0%  ASR      -  took 10 s  left 00:30",
    ]


def test_finished_runs_from_before_count_and_judge_the_time(cells, clock):
    console = plain()
    known = done(cells[0]).done
    with SweepDisplay(console, total=4, done=1, jobs=2, known=[known]) as show:
        show.tick([running(cells[1], 4.0), running(cells[2], 4.0)], cells[3:])
        assert show.left == pytest.approx((6 + 6 + 10) / 2)
        clock[0] += 60
        show.finished(done(cells[1]))
    assert lines(console)[0].startswith("2/4  lr2-seed1")


def test_a_run_under_way_is_judged_by_its_own_rounds(cells, clock):
    show = SweepDisplay(plain(), total=1, done=0, jobs=1)
    show.tick([running(cells[0], 70.0, rounds=1)], [])  # of 2 rounds
    assert show.left == pytest.approx(70.0)


def test_failures_are_told_with_their_reason_and_end_the_clock_too(cells, clock):
    console = plain()
    with SweepDisplay(console, total=2, done=0, jobs=1) as show:
        failure = Failure(cells[0], "ValueError: [bold]odd[/]")
        show.failed(failure, again=True)
        show.failed(failure, again=False)
        clock[0] += 65
        show.finished(done(cells[1], mta=None, seconds=None))
    assert lines(console) == [
        "FAILED  lr1-seed1: ValueError: [bold]odd[/] (will be tried again)",
        f"FAILED  lr1-seed1: ValueError: [bold]odd[/] (see {cells[0].folder})",
        "1/2  lr2-seed1  MTA      -  ASR      -  took 0 s  took 01:05",
    ]


def test_the_bar_moves_with_the_rounds_of_running_cells(cells, clock):
    with SweepDisplay(plain(), total=4, done=1, jobs=2) as show:
        show.tick([running(cells[1], 1.0, rounds=1), running(cells[2], 1.0)], [])  # of 2 rounds
        assert show.bar.tasks[0].completed == pytest.approx(1.5)
    assert show.bar.tasks[0].completed == pytest.approx(1.0)


def test_on_a_terminal_there_is_one_bar_over_the_whole_grid(cells, clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with SweepDisplay(console, total=4, done=1, jobs=2) as show:
        show.failed(Failure(cells[3], "odd"), again=False)
        show.tick([running(cells[1], 1.0, rounds=1)], [])
        show.bar.refresh()
    shown = console.file.getvalue()
    assert shown.index("1 running  1 failed") < shown.rindex("1/4  1 failed  left --:--")
    assert "1/4  1 running  1 failed  left 00:01" in shown
    assert not show.bar.live.is_started
