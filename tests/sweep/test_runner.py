"""Who runs when, and what becomes of failures; with processes that only pretend."""

import os
import signal
import subprocess
import sys

import pytest

from entity.record.json_files import write_json
from entity.record.lock import locked
from entity.setup import resolve
from entity.sweep import process, runner
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse
from entity.sweep.owners import Owners
from entity.sweep.process import ThisMachine
from entity.sweep.runner import reason, run_cells
from entity.sweep.worker import FAILED, REFUSED, TAKEN


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
        monkeypatch.setattr(runner, "PATIENCE", 2.0)
        monkeypatch.setattr(
            ThisMachine,
            "stop",
            lambda place, left: Pretender.stopped.extend(p.cell.labels["lr"] for p in left),
        )
        grid = parse({"base": begin.base, "axes": {"lr": [int(name) for name in names]}}, tmp_path)
        notes = notes or Notes()
        cells = begin.plan or expand(grid, tmp_path / "out")
        return run_cells(cells, ThisMachine(jobs), notes, **options), notes

    begin.base, begin.plan = tables(), None
    return begin


@pytest.fixture
def cells(sweep, tmp_path):
    """Return the cells of `sweep` as they are in the folder now."""

    def now(names=(1, 2, 3, 4)):
        grid = {"base": sweep.base, "axes": {"lr": list(names)}}
        return expand(parse(grid, tmp_path), tmp_path / "out")

    return now


def finish(cell, folder=None):
    """Leave a finished run, as another sweep would."""
    folder = folder or cell.folder
    folder.mkdir(parents=True)
    write_json(folder / "config.json", resolve.to_json(cell.config))
    (folder / "rounds.jsonl").write_text("{}\n")
    write_json(folder / "summary.json", {"state": "finished", "config_hash": cell.identity})


def contents(folder):
    """Return what is in a folder, locks apart."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


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


@pytest.mark.parametrize("rounds", [0, 2])
def test_what_is_finished_of_a_run_is_not_thrown_away_when_going_on_fails(sweep, tmp_path, rounds):
    sweep({"1": [(1, FAILED)]}, names=("1",), retry=False)
    (folder,) = (tmp_path / "out").glob("[!.]*")
    (cell,) = expand(parse({"base": sweep.base, "axes": {"lr": [1]}}, tmp_path), tmp_path)
    write_json(folder / "config.json", resolve.to_json(cell.config))  # now it is a run
    sweep({"1": [(rounds, FAILED), (1, 0)]}, names=("1",))
    assert Pretender.began == [("1", True), ("1", True)]


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


# --- other sweeps in the same folder


def test_what_another_sweep_has_is_left_to_it_and_the_rest_is_done(sweep, cells):
    other = Owners()
    assert other.take(cells()[0]) == other.take(cells()[2]) == ""
    failures, notes = sweep()
    assert notes.said == [("2", "finished"), ("4", "finished")]
    assert [(f.cell.labels["lr"], f.elsewhere) for f in failures] == [("1", True), ("3", True)]
    assert failures[0].reason.startswith(f"process {os.getpid()} on ")
    assert failures[0].reason.endswith(" is at work on it")
    assert not cells()[0].folder.exists()  # not one of its files is touched
    other.close()
    assert sweep()[0] == []


def test_cells_that_another_sweep_finished_since_the_plan_are_not_done_again(sweep, cells):
    sweep.plan = cells()
    finish(sweep.plan[1])
    finish(sweep.plan[2], sweep.plan[2].out / f"called-otherwise-{sweep.plan[2].identity[:8]}")
    before = contents(sweep.plan[0].out)
    failures, notes = sweep()
    assert failures == []
    assert [name for name, _ in Pretender.began] == ["1", "4"]
    assert sorted(notes.said) == [(name, "finished") for name in "1234"]
    assert contents(sweep.plan[0].out).items() >= before.items()


def test_a_cell_that_another_sweep_began_is_gone_on_with_under_its_name(sweep, cells):
    sweep.plan = cells((1,))
    folder = sweep.plan[0].out / f"called-otherwise-{sweep.plan[0].identity[:8]}"
    finish(sweep.plan[0], folder)
    write_json(folder / "summary.json", {"state": "interrupted"})
    sweep()
    assert Pretender.began == [("1", True)]
    assert not sweep.plan[0].folder.exists()


def test_a_cell_that_comes_free_is_taken(sweep, cells):
    other = Owners()
    other.take(cells()[0])

    class Freeing(Notes):
        def finished(self, cell):
            super().finished(cell)
            if len(self.said) == 3:
                other.close()

    failures, notes = sweep(notes=Freeing())
    assert failures == []
    assert [name for name, _ in notes.said] == ["2", "3", "4", "1"]


def test_the_death_of_its_owner_frees_a_cell(sweep, cells):
    (cell,) = cells((1,))
    script = (
        "import sys, time; from pathlib import Path; from entity.record.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('mine', flush=True); time.sleep(600)"
    )
    place = cell.out / ".owners" / cell.identity
    with subprocess.Popen(
        [sys.executable, "-c", script, str(place)], stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout.readline() == "mine\n"
        failures, _ = sweep(names=("1",))
        assert failures[0].reason.startswith(f"process {owner.pid} on ")
        owner.send_signal(signal.SIGKILL)
    failures, notes = sweep(names=("1",))
    assert failures == []
    assert notes.said == [("1", "finished")]


def test_a_single_run_in_the_folder_of_a_cell_is_left_alone(sweep, cells):
    (cell,) = cells((1,))
    with locked(cell.folder):
        before = contents(cell.folder)
        failures, _ = sweep(names=("1",))
        assert failures[0].reason.startswith(f"process {os.getpid()} on ")
        assert Pretender.began == []
        assert contents(cell.folder) == before


def test_the_worker_of_a_killed_sweep_is_waited_for(sweep, cells):
    (cell,) = cells((1,))
    script = (
        "import sys, time; from pathlib import Path; from entity.record.lock import locked\n"
        "with locked(Path(sys.argv[1])): print('mine', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(cell.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        assert worker.stdout.readline() == "mine\n"

        class Ending(Notes):
            def tick(self, running, waiting):
                super().tick(running, waiting)
                worker.stdin.close()

        failures, notes = sweep(names=("1",), notes=Ending())
    assert failures == []
    assert notes.said == [("1", "finished")]


def test_a_worker_that_finds_its_run_taken_has_not_failed(sweep):
    failures, notes = sweep({"2": [(0, TAKEN), (1, 0)]})
    assert failures == []
    assert sorted(name for name, _ in Pretender.began) == ["1", "2", "2", "3", "4"]
    assert sorted(notes.said) == [(name, "finished") for name in "1234"]


def test_a_cell_is_given_back_when_it_is_over_and_when_the_sweep_is_stopped(sweep, cells):
    with pytest.raises(KeyboardInterrupt):
        sweep(jobs=3, notes=Notes(interrupt_after=1))
    other = Owners()
    assert [other.take(cell) for cell in cells()] == [""] * 4
    other.close()


def test_where_nothing_can_be_locked_a_line_says_so_and_cells_are_run(sweep, monkeypatch, caplog):
    def no_locks(file, how):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("entity.record.lock.fcntl.flock", no_locks)
    failures, _ = sweep(names=("1",))
    assert failures == []
    assert "cannot be locked (" in caplog.text


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
