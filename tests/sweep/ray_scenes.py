"""Sweeps on a cluster of Ray; `test_on_ray.py` lets pytest run this where Ray may listen."""

import shutil
import socket
import time
from dataclasses import replace

import pytest
import ray

from entity import experiment
from entity.config.schema import ConfigError
from entity.sweep.cells import expand
from entity.sweep.grid_file import parse
from entity.sweep.on_ray import Cluster
from entity.sweep.owners import Owners
from entity.sweep.runner import run_cells

SHORT = {"client.ADR": 0.05, "federation.rounds": 3}


class Notes:
    """A watch that writes everything down, and lets the test act at every tick."""

    def __init__(self, act=lambda running: None):
        self.said, self.act = [], act

    def tick(self, running, waiting):
        self.act(running)

    def finished(self, cell):
        self.said.append((cell.labels["seed"], "finished"))

    def failed(self, failure, *, again):
        self.said.append((failure.cell.labels["seed"], "again" if again else "failed"))


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Two cores, which this process has joined."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def cells(tables, tmp_path):
    def make(seeds, **changes):
        grid = {"base": tables({**SHORT, **changes}), "seeds": seeds}
        return expand(parse(grid, tmp_path), tmp_path / "runs")

    return make


def test_cells_on_the_cluster_come_to_what_they_come_to_here(cells, tmp_path):
    notes, chosen = Notes(), cells([1, 2, 3])
    place = Cluster("auto", None)
    assert place.jobs == 2
    assert run_cells(chosen, place, notes) == []
    assert sorted(notes.said) == [("1", "finished"), ("2", "finished"), ("3", "finished")]
    assert ray.is_initialized()  # it was there before the sweep
    done = cells([1, 2, 3])
    assert {cell.state for cell in done} == {"finished"}
    here = experiment.run(chosen[0].config).summary
    assert done[0].done.facts["mta"] == here["mta"]["last10"]


def test_a_run_that_is_killed_is_tried_again(cells):
    killed = []

    def kill_once(running):
        for attempt in running:
            attempt.look()
            if attempt.rounds_run and not killed:
                killed.append(attempt.cell.name)
                ray.kill(attempt.worker)

    notes = Notes(kill_once)
    assert run_cells(cells([4], **{"federation.rounds": 40}), Cluster("auto", 1), notes) == []
    assert len(killed) == 1
    assert notes.said == [("4", "again"), ("4", "finished")]


def test_what_another_sweep_has_is_left_to_it(cells):
    notes, chosen, other = Notes(), cells([8, 9]), Owners()
    assert other.take(chosen[0]) == ""
    (left,) = run_cells(chosen, Cluster("auto", 2), notes)
    other.close()
    assert (left.cell.labels["seed"], left.elsewhere) == ("8", True)
    assert notes.said == [("9", "finished")]
    assert not chosen[0].folder.exists()


def test_told_to_stop_it_puts_its_runs_away_and_gives_the_cores_back(cells):
    def stop(running):
        if any(attempt.rounds_run for attempt in running):
            raise KeyboardInterrupt

    long = {"federation.rounds": 10_000}
    with pytest.raises(KeyboardInterrupt):
        run_cells(cells([5, 6, 7], **long), Cluster("auto", 3), Notes(stop))
    left = cells([5, 6, 7], **long)
    assert {cell.state for cell in left} == {"interrupted", "new"}
    assert any((cell.folder / "checkpoint").exists() for cell in left)
    assert not any((cell.folder / "error.txt").exists() for cell in left)
    deadline = time.monotonic() + 20
    while ray.available_resources().get("CPU", 0) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert ray.available_resources()["CPU"] == 2


def test_a_node_that_does_not_see_the_folder_is_told_apart(cells):
    (cell,) = cells([8])
    place = Cluster("auto", 1)
    attempt = place.start(cell, resume=False)
    # As on a node without the shared folder: its own copy of the path holds nothing.
    lost = replace(cell, folder=cell.folder / "elsewhere")
    code, why = ray.get(attempt.worker.run.remote(lost, False))
    assert (code, why.split(":")[0]) == (2, "is not there on the node")
    place.stop([attempt])
    shutil.rmtree(cell.folder)


def test_a_cell_that_no_node_is_large_enough_for_says_so(cells, caplog):
    (large,) = cells([10], **{"settings.workers": 64})
    place = Cluster("auto", 1)
    attempt = place.start(large, resume=False)
    place.stop([attempt])
    (small,) = cells([11])
    place.stop([place.start(small, resume=False)])
    assert [record.getMessage() for record in caplog.records] == [
        f"{large.name} waits for a larger node: no node has 64 cores, the largest has 2"
    ]


def test_no_cluster_is_a_sentence():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(ConfigError, match=rf"^ray = {address}: no cluster can be joined"):
            Cluster(address, 1)
