"""A real federation with TLS and keys: strangers, a node of NaN, a killed node, a restarted server.

Beside `test_deployment.py`, as each file is carried out by one process.
"""

import json
from pathlib import Path

import pytest

pytest.importorskip("flwr.serverapp")

from deployed import EXPERIMENT, carry_out, lines_of

pytestmark = pytest.mark.deployment


@pytest.fixture(scope="module")
def secure(tmp_path_factory, experiment) -> Path:
    return carry_out("secure", tmp_path_factory.mktemp("secure"), experiment(EXPERIMENT))


def test_a_node_without_a_key_is_turned_away(secure):
    said = (secure / "stranger.log").read_text()
    assert "SuperNode ID" not in said
    assert len(json.loads((secure / "nodes.json").read_text())) == 4
    assert all(len(line["verdicts"]) == 4 for line in lines_of(secure, "state"))


def test_a_node_of_nan_is_refused_in_every_round(secure):
    reasons = [line["refused"][3] for line in lines_of(secure, "state")]
    assert reasons == ["nonfinite update"] * 2


def test_a_restarted_server_goes_on_and_a_killed_node_costs_its_round_alone(secure):
    first, second = lines_of(secure, "state")
    assert (first["round"], second["round"]) == (1, 2)
    assert "going on after round 1" in (secure / "second.log").read_text()
    assert 2 in second["refused"]
    reason = second["refused"][2]
    assert reason == "no reply in time" or reason.startswith("error reply")
    assert second["aggregated"]
    assert {v["client"] for v in first["verdicts"]} == {v["client"] for v in second["verdicts"]}
