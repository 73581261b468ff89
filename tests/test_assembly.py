"""From a config to data, clients, defense and judge."""

import logging

import torch

from entity.assembly import device_of


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
