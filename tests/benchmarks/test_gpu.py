"""The script for a graphics card, tried without one: its budget, its ledger, its data, its page."""

import importlib
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.cifar10 import CIFAR10
from entity.seeding import Seeds

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def card(monkeypatch):
    """Return a module of `benchmarks/card` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setitem(DATASETS, "cifar10", CIFAR10)
    return lambda name: importlib.import_module(f"card.{name}")


def gpu(*words):
    return subprocess.run(
        [sys.executable, "benchmarks/gpu.py", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def wait(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)


def test_a_part_is_cut_off_when_its_share_is_over_and_the_next_one_runs(card):
    budget = card("budget").Budget(600)
    done = []
    with budget.share(0.05):
        done.append("first begins")
        wait(60)
        done.append("first ends")
    with budget.share(60):
        assert 0 < budget.left <= 60
        done.append("second")
    assert done == ["first begins", "second"]
    assert budget.left > 60


def test_the_end_of_the_whole_budget_ends_what_is_inside(card):
    module = card("budget")
    budget = module.Budget(0.05)
    with pytest.raises(module.TimeUp), budget.share(60), budget.share(60):
        wait(60)
    assert budget.left <= 0
    with pytest.raises(module.TimeUp), budget.share(60):
        wait(60)


def test_a_failure_is_none_of_the_budgets(card):
    budget = card("budget").Budget(600)
    with pytest.raises(KeyError), budget.share(60):
        raise KeyError
    assert budget.left > 60


def test_a_line_that_was_cut_off_hides_no_other(card, tmp_path):
    ledger = card("ledger").Ledger(tmp_path / "ledger.jsonl")
    assert ledger.lines() == []
    ledger.add("speed", ours=1)
    with ledger.path.open("a") as file:
        file.write('{"part": "spe')
    ledger.add("speed", ours=2)
    assert [line["ours"] for line in ledger.lines("speed")] == [1, 2]
    assert ledger.lines("round") == []


@pytest.fixture
def folder(tmp_path):
    """Two images a class, as CIFAR-10 lies in an image folder."""
    rng = np.random.default_rng(1)
    for part in ("train", "valid", "test"):
        for name in CIFAR10.class_names:
            below = tmp_path / "images" / part / name
            below.mkdir(parents=True)
            pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(below / "1.jpg")
    return tmp_path / "images"


@pytest.mark.parametrize("packed", [False, True])
def test_cifar10_is_read_from_a_folder_or_an_archive(card, folder, tmp_path, packed):
    where = folder
    if packed:
        where = tmp_path / "images.tar.gz"
        with tarfile.open(where, "w:gz") as tar:
            tar.add(folder, "cifar10-folder")
    for _ in range(2):  # what is unpacked is not unpacked again
        card("data").use_cifar10(where, tmp_path / "out")
        train, test = DATASETS["cifar10"].read(tmp_path / "elsewhere", Seeds(1))
        assert (len(train), len(test)) == (20, 10)  # valid is trained on, too
        assert train.y.bincount().tolist() == [2] * 10
    assert DATASETS["cifar10"].augmentation == CIFAR10.augmentation


def test_other_images_and_no_images_are_refused(card, folder, tmp_path):
    data = card("data")
    (folder / "train" / "airplane").rename(folder / "train" / "aeroplane")
    with pytest.raises(ConfigError, match="CIFAR-10's are airplane"):
        data.use_cifar10(folder, tmp_path / "out")
    with pytest.raises(ConfigError, match="neither a folder nor an archive"):
        data.use_cifar10(tmp_path / "nothing", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="has no train"):
        data.use_cifar10(tmp_path / "empty", tmp_path / "out")


@pytest.mark.slow
def test_without_a_card_the_script_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("no real lack of a card")
    done = gpu("--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("there is no CUDA card here; --tiny tries the script on a CPU\n")


@pytest.mark.slow
def test_what_a_cpu_came_to_is_not_published(card, tmp_path):
    before = (ROOT / "docs" / "PERFORMANCE.md").read_text()
    ledger = card("ledger").Ledger(tmp_path / "ledger.jsonl")
    ledger.add("environment", card="no card, a CPU", memory=0.0)
    done = gpu("--out", tmp_path, "--page")
    assert done.returncode == 2
    assert done.stderr.endswith("holds nothing that was found on a card\n")
    assert (ROOT / "docs" / "PERFORMANCE.md").read_text() == before


def play(card, tmp_path, budget, monkeypatch, seconds, distillation, rounds=6):
    """Play a cell of DROP whose rounds take no time, by a stand-in for the experiment."""
    cells = card("cells")
    folder = tmp_path / "run"
    called = []

    def run(config, folder, on_round, resume):
        called.append(resume)
        folder.mkdir(exist_ok=True)
        (folder / "config.json").touch()
        path = folder / "rounds.jsonl"
        begin = len(path.read_text().splitlines()) if path.exists() else 0
        for number in range(begin + 1, rounds + 1):
            found = {"distilled": 1.0} if number % 5 == 0 else {}
            line = {"round": number, "mta": number / 10, "asr": 0.02, "diagnostics": found}
            line["seconds"] = {"train": 1.0, "aggregate": 0.5, "evaluate": 0.25}
            with path.open("a") as file:
                file.write(json.dumps(line) + "\n")
            on_round(line)

    monkeypatch.setattr(cells.experiment, "run", run)
    with budget.share(seconds):
        found = cells.play(
            "drop", CPU, folder, budget, half=False, tiny=False, distillation=distillation
        )
    return found, called


def test_a_cell_stops_before_a_distillation_that_would_not_end_and_goes_on_later(
    card, tmp_path, monkeypatch
):
    budget = card("budget").Budget(1000)
    found, called = play(card, tmp_path, budget, monkeypatch, 60, 300.0)
    assert (found["rounds"], found["of"], called) == (4, 200, [False])
    assert "330 s wanted" in found["stopped"]
    assert found["mta"] == pytest.approx(0.25)
    assert found["seconds"] == 1.75
    assert (found["distils"], found["distilled"]) == (True, 0)
    found, called = play(card, tmp_path, budget, monkeypatch, 60, 300.0)
    assert (found["rounds"], called) == (4, [])  # nothing is begun
    found, called = play(card, tmp_path, budget, monkeypatch, 400, 300.0)
    assert (found["rounds"], called) == (6, [True])
    assert found["distilled"] == 1


def test_the_shipped_cells_are_c4_at_the_papers_stealthiest_rate(card):
    for name in card("cells").PAPER:
        config = card("rounds").shipped_config(name, CPU, {}, tiny=False)
        client = config.client
        assert (client.lr, client.batch_size, client.num_epochs) == (0.01, 64, 2)  # C4
        assert client.attack.DPR == 0.125  # of one class in ten: 1.25 % of all
        federation = config.federation
        assert (federation.size, federation.round_size, federation.rounds) == (50, 25, 200)
        assert federation.number_of_malicious_clients == 10  # MCR 20 %
    drop = config.server.defense.defense_args
    assert (drop.K, drop.budget, drop.batch_size, drop.iterations) == (5, 5e6, 512, 651)


def test_the_page_shows_the_latest_findings_and_what_failed(card, tmp_path):
    ledger = card("ledger").Ledger(tmp_path / "ledger.jsonl")
    machine = {"card": "A Card", "memory": 79.6, "driver": "1", "cores": 16, "torch": "2"}
    machine |= {"cuda": "13", "cudnn": 9, "python": "3.12", "commit": "abc"}
    ledger.add("environment", **machine, date="2026-01-01", data="images")
    check = {"most": 0.1, "unit": "of the update", "remark": ""}
    ledger.add("checks", check="one", value=0.2, passed=False, **check)
    ledger.add("checks", check="one", value=0.01, passed=True, **check)
    ledger.add("checks", check="two", value=float("inf"), passed=False, **check)
    for ours in (500.0, 850.0):
        ledger.add("speed", model="resnet18", batch=64, precision="bfloat16", bare=1000.0,
                   ours=ours, share=ours / 1000, limit=8500.0, replayed=None)  # fmt: skip
    ledger.add("distillation", way="as published", teachers=25, batch=512, iterations=20, of=651,
               seconds=30.0, whole=950.0, phases={"teachers": 20.0, "student": 9.5})  # fmt: skip
    ledger.add("cells", cell="drop", half=False, rounds=14, of=200, mta=0.5, asr=0.013,
               asr_worst=0.04, seconds=3.5, stopped="")  # fmt: skip
    ledger.add("ended", name="round", how="cut off when its time was over")
    page = card("page").section(ledger)
    assert "**A Card**, 80 GiB" in page
    assert "1 of 2 do" in page
    assert "| one | 0.01 | 0.1 of the update | yes |" in page
    assert "| two | inf | 0.1 of the update | **no** |" in page
    assert "| 64 | bfloat16 | 850 | 1,000 | **85%** | - | 8,500 | 10% |" in page
    assert "| 20 of 651 | 30.0 | **950** (extrap.) | teachers 68%, student 32% |" in page
    assert "| drop | 14 of 200 | 50.0 | 76.0 | 1.3 | 4.0 | 1.3 | 3.50 |" in page
    assert page.endswith("Not whole: round: cut off when its time was over.")


def test_a_cell_that_reached_no_distillation_says_so(card, tmp_path):
    ledger = card("ledger").Ledger(tmp_path / "ledger.jsonl")
    line = {"half": False, "rounds": 4, "of": 200, "mta": 0.5, "asr": 0.01, "asr_worst": 0.04}
    line |= {"seconds": 3.5, "stopped": ""}
    ledger.add("cells", cell="droplet", distils=False, distilled=0, **line)
    ledger.add("cells", cell="drop", distils=True, distilled=0, **line)
    page = card("page").section(ledger)
    assert "| drop | 4 of 200, no distillation was reached |" in page
    assert "| droplet | 4 of 200 |" in page
    ledger.add("cells", cell="drop", distils=True, distilled=1, **line)
    assert "no distillation" not in card("page").section(ledger)


def test_what_a_cpu_cannot_look_for_holds_for_nothing(card, tmp_path):
    (found,) = card("checks").nothing_waits(CPU)
    assert str(found) == "--  waits inside local training: not looked for, there is no card here"
    ledger = card("ledger").Ledger(tmp_path / "ledger.jsonl")
    ledger.add("checks", **asdict(found), passed=found.passed)
    ledger.add("checks", check="one", value=0.01, most=0.1, unit="", remark="", passed=True)
    page = card("page").section(ledger)
    assert "### What must hold: 1 of 1 do, 1 not looked for" in page
    assert "| waits inside local training | - | 0 waits | not looked for (there is no" in page


def test_a_profile_counts_the_calls_that_wait(card):
    checks = card("checks")

    def waits():
        with torch.profiler.record_function("cudaStreamSynchronize"):
            torch.ones(2).sum()

    only = [torch.profiler.ProfilerActivity.CPU]
    assert checks.waits_in(waits, only) == {"cudaStreamSynchronize": 1}
    assert checks.waits_in(lambda: torch.ones(2).sum(), only) == {}


@pytest.mark.slow
def test_all_parts_run_on_a_cpu_and_a_later_call_goes_on(tmp_path):
    done = gpu("--tiny", "--out", tmp_path, "--seconds", "3000")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(text) for text in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    ended = {line["name"]: line["how"] for line in lines if line["part"] == "ended"}
    assert ended.keys() == {"checks", "speed", "round", "distillation", "cells"}
    assert all(line["passed"] for line in lines if line["part"] == "checks")
    cells = {line["cell"]: line["rounds"] for line in lines if line["part"] == "cells"}
    assert cells == {"undefended": 2, "droplet": 2, "drop": 2}
    again = gpu("--tiny", "--out", tmp_path, "--parts", "cells")
    assert again.returncode == 0, again.stderr
    assert "drop: 2 of 2 rounds (all rounds are done)" in again.stdout
