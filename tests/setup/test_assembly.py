"""From a config to data, clients, defense and judge."""

import logging

import pytest
import torch

from entity.config.schema import ConfigError
from entity.seeding import Seeds
from entity.setup import resolve
from entity.setup.assembly import device_of, recruit


def test_a_device_that_is_not_there_is_said_in_one_line(experiment, caplog, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with caplog.at_level(logging.INFO, "entity"):
        device = device_of(experiment({"settings.cuda": 0}))
    assert device.type == "cpu"
    assert [record.getMessage() for record in caplog.records] == [
        "no CUDA device 0 here: using the CPU"
    ]
    caplog.clear()
    assert device_of(experiment({"settings.cuda": -1})).type == "cpu"
    assert not caplog.records


def test_mps_is_asked_for_by_name_and_differs_by_nothing_but_the_device(
    experiment, caplog, monkeypatch
):
    config = experiment({"settings.cuda": "mps"})
    assert resolve.identity(config) == resolve.identity(experiment())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of(config) == torch.device("mps")
    assert device_of(experiment({"settings.cuda": 0})).type != "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with caplog.at_level(logging.INFO, "entity"):
        assert device_of(config).type == "cpu"
    assert caplog.messages == ["no MPS device here: using the CPU"]
    with pytest.raises(ConfigError, match=r"settings\.cuda = \"metal\": allowed is"):
        experiment({"settings.cuda": "metal"})


@pytest.mark.parametrize(("attackers", "missing"), [(1, 3), (3, 1), (4, 0)])
def test_parts_of_a_trigger_without_an_attacker_are_said(experiment, caplog, attackers, missing):
    config = experiment(
        {
            "client.attack.poison": "dba",
            "federation.size": 8,
            "federation.round_size": 8,
            "federation.number_of_malicious_clients": attackers,
        }
    )
    recruit(config, Seeds(1))
    said = (
        f"client.attack.poison = dba: {missing} of the 4 parts of its trigger are never trained "
        f"on, as federation.number_of_malicious_clients = {attackers}"
    )
    assert caplog.messages == ([said] if missing else [])
