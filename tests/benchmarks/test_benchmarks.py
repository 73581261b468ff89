"""Every benchmark runs from its command line; what is measured is not asserted."""

import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from entity.models import build
from entity.setup import resolve
from entity.setup.field_list import SHIPPED

ROOT = Path(__file__).parents[2]
on_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


def answer(*words):
    """Run Python with some words and return what it prints."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def cells(text):
    """Return the cells of the one line that a benchmark prints."""
    (line,) = text.splitlines()
    return line.split("  ")


@pytest.mark.slow
def test_a_round_is_timed_against_its_floor():
    line = cells(answer("benchmarks/round.py", "--tiny", "--repeats", "1"))
    assert line[:3] == ["`cnn` 1x28x28", "2 x 20 x 1, batch 10", "pool"]
    floor, seconds = map(float, line[3:5])
    ratio = float(line[5].split("**")[1])
    assert ratio == pytest.approx(seconds / floor, rel=0.1)  # of one pair, which is its own median


@pytest.mark.slow
def test_our_side_of_the_peers_learns():
    words = ["--only-ours", "--model", "cnn", "--turns", "1", "--rounds", "6", "--share", "0.2"]
    line = cells(answer("benchmarks/peers.py", *words))
    assert line[:2] == ["cnn", "this project"]
    assert float(line[-2]) > 25  # of ten classes


@pytest.mark.slow
def test_a_peer_that_is_missing_is_left_out_with_the_mend():
    code = "import sys; sys.path.insert(0, 'benchmarks'); import peers; print(peers.peers(None))"
    said = answer("-c", code)
    assert "blazefl is left out: " in said
    assert "pip install 'blazefl[contrib,reproducibility]'" in said
    assert "'blazefl, processes'" not in said


@on_linux
@pytest.mark.slow
def test_memory_of_a_large_federation_is_measured(tmp_path):
    words = ["--rounds", "3", "--engine", "inline", "--no-page", "--data_root", str(tmp_path)]
    *_, small, large, verdict = answer("benchmarks/scale.py", *words).splitlines()
    assert small.startswith("| 100 |")
    assert large.startswith("| 10,000 |")
    assert 0 < float(verdict.split("**")[1]) < 10


@pytest.mark.slow
@on_linux
def test_one_defense_is_measured():
    found = json.loads(answer("benchmarks/aggregate.py", "--one", "undefended", "1M"))
    assert found["seconds"] > 0
    assert found["read"] > 0


def test_a_section_is_replaced_and_the_rest_of_its_page_stays(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    pages = importlib.import_module("pages")
    page = tmp_path / "PAGE.md"
    page.write_text("# Title\n")
    pages.put_section(page, "one", "first")
    pages.put_section(page, "two", r"with \1 in it")
    pages.put_section(page, "one", "second")
    assert page.read_text() == (
        "# Title\n\n<!-- one -->\nsecond\n<!-- /one -->\n\n"
        "<!-- two -->\nwith \\1 in it\n<!-- /two -->\n"
    )


def test_a_distillation_has_its_seed_images_of_all_classes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    situations, distill = map(importlib.import_module, ("situations", "distill"))
    federation = replace(situations.FEDERATIONS["digits"], rounds=1)
    found = situations.prepare(federation, 1, tmp_path)
    assert len(found.teachers) == 15 + federation.survivors
    seeds = found.clean.y[: distill.NUM_SEED]
    assert min(seeds.bincount(minlength=10)) > 10  # of 30 to be expected


def test_flower_as_a_peer_trains_what_was_handed_out(tmp_path, monkeypatch, capsys):
    """Flower's own strategy and apps; messages go by a loop in place of Ray."""
    pytest.importorskip("flwr.simulation")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    loopback = pytest.importorskip("loopback")
    peer, shared = map(importlib.import_module, ("peer_flower", "shared_federation"))
    from flwr.app import Context, RecordDict

    def simulation(server, client, num_supernodes, backend_config):
        assert num_supernodes == 2
        nodes = {
            number: partial(client, context=Context(1, number, {"partition-id": number - 1},
                                                    RecordDict(), {}))
            for number in (1, 2)
        }  # fmt: skip
        server(loopback.Loopback(nodes), Context(1, 0, {}, RecordDict(), {}))

    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(40) % 10
    images = torch.randn(40, 1, 28, 28, generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        image[:, 2 * label : 2 * label + 3] += 3  # a bright stripe, lower by class
    model = build("cnn", 1, 28, 10, generator)
    path = tmp_path / "federation.pt"
    halves = [*zip(images.split(20), labels.split(20), strict=True)]
    made = shared.SharedFederation(
        *("cnn", 1, 28, 2, 8, 8, 0.05, 1), halves, (images, labels), model.state_dict()
    )
    made.save(path)
    monkeypatch.setattr(peer, "run_simulation", simulation)
    monkeypatch.setattr(sys, "argv", ["peer_flower", str(path)])
    assert peer.main() == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["seconds"]) == len(found["mta"]) == 2
    assert found["mta"][-1] > 0.5 > made.accuracy(made.fresh_model())


def test_every_method_has_a_run_whose_bits_are_compared(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.chdir(ROOT)
    same_bits = importlib.import_module("same_bits")
    found = set[str]()
    for (_, config, *words), *_ in same_bits.runs().values():
        given = [(name[2:], text) for name, text in zip(words[::2], words[1::2], strict=True)]
        made = resolve.experiment(resolve.read(Path(config)), given)
        attack = made.client.attack
        found |= {made.server.defense.type, attack.type, attack.poison}
    assert SHIPPED - found == {"edge_case"}
    assert "user" in same_bits.NOT_HERE["edge_case"]
