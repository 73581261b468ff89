"""Ray on two nodes; `test_ray_actors.py` lets pytest run this where Ray may listen."""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import ray
import torch

from entity.client import Broadcast
from entity.engine import Inline, RayActors


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """Where dying clients leave a mark; nodes and their actors inherit the variables."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ODD_CLIENTS", str(tmp_path_factory.mktemp("marks")))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
        yield


@pytest.fixture(scope="module")
def cluster(marks):
    """Two nodes on this host, of which the second may die."""
    folder = os.environ["RAY_TMPDIR"]
    host = socket.gethostbyname(socket.gethostname())
    start = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    head = ["--head", "--port=6399", "--include-dashboard=false", f"--temp-dir={folder}/cluster"]
    nodes = [subprocess.Popen([*start, *head, "--disable-usage-stats"], **quiet)]
    address = f"{host}:6399"
    try:
        while socket.socket().connect_ex((host, 6399)):
            assert nodes[0].poll() is None
            time.sleep(0.1)
        second = {**os.environ, "ODD_NODE": "1"}
        nodes.append(subprocess.Popen([*start, f"--address={address}"], env=second, **quiet))
        yield address
    finally:
        ray.shutdown()
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            with suppress(subprocess.TimeoutExpired):
                node.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)


def test_a_node_that_is_lost_is_survived_with_the_same_result(
    make_roster, odd_clients, cluster, caplog
):
    ids = (0, 1, 2, 3)  # all benign, so that whoever trains first on the second node kills it
    roster = make_roster({"settings.ray_address": cluster, "settings.workers": 2})
    state = roster.spec.flatten(roster.new_model())
    broadcast = Broadcast(odd_clients.NODE_DIES, state)
    with RayActors(roster, 2) as engine, caplog.at_level(logging.WARNING, "entity"):
        ray.wait([w.answer for w in engine._workers], num_returns=2)  # both nodes are there
        found = engine.train(broadcast, ids)
    assert [text.split("(")[0] for text in caplog.messages] in (
        [f"client {each}: its actor died "] for each in ids
    )
    expected = Inline(roster).train(broadcast, ids)
    assert torch.equal(found.weights, expected.weights)
    assert torch.equal(found.buffers, expected.buffers)

    assert not ray.is_initialized()  # the engine has left the cluster, which goes on
