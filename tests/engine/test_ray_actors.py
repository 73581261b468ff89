"""Runs `ray_scenes.py` in a network namespace: Ray listens on the machine's own address."""

import json
import os
import pickle
import shutil
import signal
import socket
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset.cache_folder import Mapped
from entity.engine import check_engine
from entity.engine.transfer import PackedRoster
from entity.experiment import run
from entity.record.checkpoint import Checkpoints
from entity.seeding import Seeds
from entity.setup.assembly import recruit


@pytest.mark.deployment
def test_the_scenes_of_ray(apart):
    here = Path(__file__).parent
    apart.play(here / "ray_scenes.py", here / "ray_node_scenes.py")


@pytest.mark.deployment
def test_ctrl_c_ends_a_run_and_the_ray_it_started(apart, tables, experiment, tmp_path):
    """What is done by then, of FedAvg under BadNets, is what one process does."""
    config, out = tmp_path / "config.json", tmp_path / "run"
    changes = {"settings.engine": "ray", "settings.workers": 1, "federation.rounds": 10_000}
    config.write_text(json.dumps(tables(changes)))
    started = apart.start("entity.cli", "run", "--config", config, "--out", out)
    rounds = out / "rounds.jsonl"
    while started.poll() is None and not (rounds.exists() and rounds.read_text().count("\n") > 2):
        time.sleep(0.1)
    os.killpg(started.pid, signal.SIGINT)  # as a terminal does
    said = started.communicate()[1]
    assert started.returncode == 130, said
    assert f"To go on: drop run --resume {out}" in said
    assert not apart.left_behind()
    kept = Checkpoints(out, {}, 0).last(len(rounds.read_text().splitlines()))
    one = run(experiment({"federation.rounds": kept.snapshot.round}))
    assert torch.equal(kept.snapshot.state.weights, one.state.weights)


def test_without_ray_there_is_a_sentence_with_the_mend(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"settings\.engine = ray: needs Ray.*\.\[ray\]'"):
        check_engine(experiment({"settings.engine": "ray"}).settings)


def test_no_cluster_at_the_address_is_a_sentence_before_anything_is_read(experiment, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", types.ModuleType("ray"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        changes = {"settings.engine": "ray", "settings.ray_address": address}
        with pytest.raises(ConfigError, match=rf"ray_address = {address}: .* \(Connection refused"):
            check_engine(experiment(changes).settings)


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", "http://head:80"])
def test_addresses_of_other_kinds_are_refused(experiment, address):
    with pytest.raises(ConfigError, match=r"allowed is auto, HOST:PORT or null"):
        experiment({"settings.ray_address": address})


def test_images_in_memory_travel_with_the_roster(make_roster):
    roster = make_roster()
    assert PackedRoster.of(roster).unpack() is roster


def test_cached_images_stay_and_are_mapped_from_the_nodes_own_folder(
    experiment, tmp_path, monkeypatch
):
    rng = np.random.default_rng(1)
    for split, count in (("train", 40), ("test", 8)):
        for name in ("cats", "dogs"):
            place = tmp_path / "here" / "pets" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(256, size=(8, 8), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    config = experiment(
        {
            "dataset": "imagefolder:pets",
            "client.attack": None,
            "client.ADR": 1.0,
            "server.held_out": 8,
            "settings.datasets_path": str(tmp_path / "here"),
        }
    )
    _, roster = recruit(config, Seeds(1))
    assert isinstance(roster.images.images, Mapped)
    packed = PackedRoster.of(roster)
    assert len(packed.roster.images) == 0
    sent = pickle.loads(pickle.dumps(packed))
    assert (sent.unpack().images.x == roster.images.x).all()

    shutil.copytree(tmp_path / "here", tmp_path / "there")
    (tmp_path / "here").rename(tmp_path / "gone")
    monkeypatch.setenv("DROP_DATA", str(tmp_path / "there"))
    assert (sent.unpack().images.x == roster.images.x).all()
    other = replace(sent, sha256="0")
    with pytest.raises(ConfigError, match=r"datasets_path = .*there: holds another"):
        other.unpack()
