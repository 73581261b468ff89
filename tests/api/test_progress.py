import io

import pytest
from rich.console import Console

from entity.api import progress
from entity.api.progress import Display, percent


def line(number, **values):
    return {"round": number, "mta": 0.5, "asr": None, "refused": [], **values}


@pytest.fixture(autouse=True)
def terminal(monkeypatch):
    """Terminals that are asked for are no dumb ones, whatever these tests run in."""
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    return now


def plain():
    return Console(file=io.StringIO(), width=40)


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "  0.0%"), (0.123, " 12.3%"), (1.0, "100.0%"), (None, "     -"), (0.99951, "100.0%")],
)
def test_shares_have_one_width(share, text):
    assert percent(share) == text


def test_away_from_a_terminal_every_round_is_one_plain_line(clock):
    console = plain()
    with Display(console, "drop", 4) as show:
        clock[0] += 10
        show(line(1, mta=0.876, asr=0.05, refused=[3, 4]))
        clock[0] += 10
        show(line(2))
    lines = console.file.getvalue().splitlines()
    assert lines == [  # longer than the console is wide, and not wrapped
        "drop    1/4  MTA  87.6%  ASR   5.0%  refused  2  left 00:30",
        "drop    2/4  MTA  50.0%  ASR      -  refused  0  left 00:20",
    ]


def test_the_last_round_says_how_long_it_took_and_long_runs_have_hours(clock):
    console = plain()
    with Display(console, "x", 100) as show:
        clock[0] += 120
        show(line(1))
        clock[0] += 80
        show(line(100))
    first, last = console.file.getvalue().splitlines()
    assert first.endswith("left 3:18:00")
    assert last.endswith("took 200 s")


def test_markup_in_a_title_is_shown_as_it_is(clock):
    console = plain()
    with Display(console, "[bold]odd[/]", 1) as show:
        show(line(1))
    assert console.file.getvalue().startswith("[bold]odd[/]    1/1")


def test_quiet_says_nothing():
    for terminal in (False, True):
        console = Console(file=io.StringIO(), force_terminal=terminal)
        with Display(console, "x", 1, quiet=True) as show:
            show(line(1))
        assert console.file.getvalue() == ""


def test_on_a_terminal_there_is_one_bar_that_stays(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Display(console, "drop", 2) as show:
        show(line(1))
        show(line(2, mta=0.9))
    shown = console.file.getvalue()
    assert "2/2  MTA  90.0%" in shown
    assert "\x1b[" in shown  # it is drawn over, not line by line
    assert not Console(file=io.StringIO()).is_terminal


def test_a_log_that_is_no_terminal_has_a_line_a_round_beside_the_bar_or_instead_of_lines(clock):
    log, screen = plain(), Console(file=io.StringIO(), force_terminal=True, width=100)
    with Display(screen, "drop", 2, log=log) as show:
        show(line(1))
        assert log.file.getvalue().endswith("left 00:00\n")  # at once, for whoever follows it
        show(line(2, mta=0.9))
    assert [text[:26] for text in log.file.getvalue().splitlines()] == [
        "drop    1/2  MTA  50.0%  A",
        "drop    2/2  MTA  90.0%  A",
    ]
    assert "\x1b[" in screen.file.getvalue()
    elsewhere, log = plain(), plain()
    with Display(elsewhere, "drop", 1, log=log) as show:
        show(line(1))
    assert elsewhere.file.getvalue() == ""
    assert len(log.file.getvalue().splitlines()) == 1


def test_a_run_outlives_the_reader_of_its_log(clock):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    screen = plain()
    with Display(screen, "drop", 2, log=Console(file=Closed())) as show:
        show(line(1))
        show(line(2))
    assert len(screen.file.getvalue().splitlines()) == 1


def test_the_bar_is_put_away_when_the_run_fails():
    console = Console(file=io.StringIO(), force_terminal=True)
    with pytest.raises(KeyboardInterrupt), Display(console, "x", 2) as show:
        raise KeyboardInterrupt
    assert show.bar.finished is False
    assert not show.bar.live.is_started
