"""Who runs when, and what becomes of failures; with processes that only pretend."""

import os

import pytest

from entity.record.json_files import write_json
from entity.setup import resolve
from entity.sweep import process, runner
from entity.sweep.cells import expand
from entity.sweep.grid import parse
from entity.sweep.process import ThisMachine
from entity.sweep.runner import reason, run_cells
from entity.sweep.worker import FAILED, REFUSED


class Pretender:
    """Stands in for `Process`: ends at once, with the exit code that the script says."""

    script: dict[str, list[tuple[int, int]]]
    """(rounds to finish, exit code) of each attempt, by name of the cell."""
    began: list[tuple[str, bool]]
    alive: int
    most: int
    stopped: list[str]
    lasting = False
    """Ends only once its `writer` is closed."""

    def __init__(self, cell, *, resume):
        cls = type(self)
        name = cell.labels["lr"]
        cls.began.append((name, resume))
        attempt = sum(other == name for other, _ in cls.began) - 1
        self.cell, self.resume = cell, resume
        self.rounds_run, self.code = cls.script.get(name, [(1, 0)] * 9)[attempt]
        if isinstance(self.code, OSError):
            raise self.code
        cls.alive += 1
        cls.most = max(cls.most, cls.alive)
        self.reader, writer = os.pipe()
        cell.folder.mkdir(parents=True, exist_ok=True)
        if self.rounds_run:
            (cell.folder / "rounds.jsonl").write_text("{}\n")
        if self.code:
            (cell.folder / "error.txt").write_text(f"Traceback\n\nattempt {attempt}\n")
        if cls.lasting:
            self.writer = writer
        else:
            os.close(writer)

    def fileno(self):
        return self.reader

    def read(self):
        return bool(os.read(self.reader, 1))

    def end(self):
        os.close(self.reader)
        type(self).alive -= 1
        return self.code


class Notes:
    """A watch that writes everything down."""

    def __init__(self, interrupt_after=None):
        self.said, self.ticks, self.interrupt_after = [], 0, interrupt_after

    def tick(self, running, waiting):
        self.ticks += 1

    def finished(self, cell):
        self.said.append((cell.labels["lr"], "finished"))
        if len(self.said) == self.interrupt_after:
            raise KeyboardInterrupt

    def failed(self, failure, *, again):
        self.said.append((failure.cell.labels["lr"], "again" if again else "failed"))


@pytest.fixture
def sweep(tables, tmp_path, monkeypatch):
    def begin(script=None, names=("1", "2", "3", "4"), *, jobs=1, notes=None, **options):
        Pretender.script, Pretender.began, Pretender.stopped = script or {}, [], []
        Pretender.alive = Pretender.most = 0
        monkeypatch.setattr(process, "Process", Pretender)
        monkeypatch.setattr(
            ThisMachine,
            "stop",
            lambda place, left: Pretender.stopped.extend(p.cell.labels["lr"] for p in left),
        )
        grid = parse({"base": begin.base, "axes": {"lr": [int(name) for name in names]}}, tmp_path)
        notes = notes or Notes()
        failures = run_cells(expand(grid, tmp_path / "out"), ThisMachine(jobs), notes, **options)
        return failures, notes

    begin.base = tables()
    return begin


def test_all_run_in_order_and_no_more_at_a_time_than_there_are_jobs(sweep):
    failures, notes = sweep()
    assert failures == []
    assert [name for name, _ in Pretender.began] == ["1", "2", "3", "4"]
    assert notes.said == [(name, "finished") for name in "1234"]
    assert Pretender.most == 1
    sweep(jobs=3)
    assert Pretender.most == 3
    sweep(jobs=99)
    assert Pretender.most == 4


def test_a_failure_is_tried_once_more_after_the_others(sweep):
    failures, notes = sweep({"2": [(1, FAILED), (1, 0)]})
    assert failures == []
    assert [name for name, _ in Pretender.began] == ["1", "2", "3", "4", "2"]
    assert notes.said[1] == ("2", "again")
    assert notes.said[-1] == ("2", "finished")


def test_what_fails_twice_has_failed_and_the_rest_goes_on(sweep):
    failures, notes = sweep({"2": [(1, FAILED), (1, -9)], "4": [(0, FAILED), (0, FAILED)]}, jobs=2)
    assert [failure.cell.labels["lr"] for failure in failures] == ["2", "4"]
    assert failures[0].reason == "attempt 1"
    assert ("1", "finished") in notes.said
    assert ("3", "finished") in notes.said


def test_what_was_refused_is_not_tried_again_nor_anything_without_retry(sweep):
    failures, _ = sweep({"2": [(0, REFUSED)]})
    assert len(failures) == 1
    assert len(Pretender.began) == 4
    failures, _ = sweep({"2": [(0, FAILED)]}, retry=False)
    assert len(failures) == 1
    assert len(Pretender.began) == 4


def test_a_retry_goes_on_with_the_rounds_that_are_finished(sweep):
    sweep({"1": [(0, FAILED), (1, 0)], "2": [(3, FAILED), (1, 0)]}, names=("1", "2"))
    assert Pretender.began == [("1", False), ("2", False), ("1", False), ("2", True)]


@pytest.mark.parametrize(("rounds", "again"), [(0, False), (2, True)])
def test_going_on_that_leads_nowhere_is_followed_by_a_new_start(sweep, tmp_path, rounds, again):
    sweep({"1": [(1, FAILED)]}, names=("1",), retry=False)
    (folder,) = (tmp_path / "out").iterdir()
    (cell,) = expand(parse({"base": sweep.base, "axes": {"lr": [1]}}, tmp_path), tmp_path)
    write_json(folder / "config.json", resolve.to_json(cell.config))  # now it is a run
    sweep({"1": [(rounds, FAILED), (1, 0)]}, names=("1",))
    assert Pretender.began == [("1", True), ("1", again)]


def test_a_process_that_cannot_be_started_fails_its_cell_only(sweep):
    failures, notes = sweep({"3": [(0, OSError(28, "No space left on device"))]})
    assert [failure.cell.labels["lr"] for failure in failures] == ["3"]
    assert "No space left on device" in failures[0].reason
    assert notes.said[-1] == ("4", "finished")


def test_an_interrupt_stops_the_running_and_starts_nothing_more(sweep):
    notes = Notes(interrupt_after=1)
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs=2, notes=notes)
    assert len(Pretender.began) == 2
    ((finished, _),) = notes.said
    assert {finished, *Pretender.stopped} == {"1", "2"}


def test_the_watch_is_told_while_nothing_happens(sweep, monkeypatch):
    monkeypatch.setattr(runner, "TICK", 0.001)
    monkeypatch.setattr(Pretender, "lasting", True)

    class Patient(Notes):
        def tick(self, running, waiting):
            super().tick(running, waiting)
            if self.ticks == 4:
                os.close(running[0].writer)

    _, notes = sweep(names=("1",), notes=Patient())
    assert notes.ticks == 4
    assert notes.said == [("1", "finished")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Traceback (most recent call last):\n  here\nValueError: odd\n\n", "ValueError: odd"),
        ("", "no reason is known"),
        (None, "no reason is known"),
        ("\xff one", "\xff one"),
    ],
)
def test_the_reason_is_the_last_line_of_the_error(tables, tmp_path, text, expected):
    (cell,) = expand(parse({"base": tables()}, tmp_path), tmp_path)
    if text is not None:
        cell.folder.mkdir()
        (cell.folder / "error.txt").write_text(text, encoding="utf-8")
    assert reason(cell) == expected
