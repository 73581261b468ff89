"""The robustness figures in small, and that they notice what they are there to notice."""

import importlib
import logging
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from entity.config.schema import ConfigError
from entity.experiment import run
from entity.setup import resolve

ROOT = Path(__file__).parents[2]


@pytest.fixture
def figure(monkeypatch):
    """Return a module of `benchmarks/robustness` by its name."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.delenv("DROP_DATA", raising=False)
    log = logging.getLogger("entity")
    level = log.level
    yield lambda name: importlib.import_module(f"robustness.{name}")
    log.setLevel(level)  # which the script raises


def tally_of(figure, cases, seeds):
    tally = figure("tally").Tally()
    for seed in seeds:
        tally.add(seed, cases.case(seed))
    return tally


def stress(*words):
    return subprocess.run(
        [sys.executable, "benchmarks/stress.py", "--jobs", "1", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )


def counts_of(text):
    """Return the numbers of a figure's line, by what they count."""
    return {name: int(number) for number, name in re.findall(r"(\d+) ([^,;]+)", text)}


def test_random_configurations_are_accepted_or_refused(figure):
    configurations = figure("configurations").Configurations()
    tally = tally_of(figure, configurations, range(100))
    assert tally.failures == []
    assert configurations.shortfall(tally) == ""
    assert tally.counts["accepted"] + tally.counts["refused"] == 100


def refuse(*given):
    raise ConfigError("no.")


def crash(*given):
    raise KeyError("type")


def test_a_resolver_that_refuses_everything_or_crashes_fails(figure, monkeypatch):
    module = figure("configurations")
    configurations = module.Configurations()
    monkeypatch.setattr(module.resolve, "experiment", refuse)
    tally = tally_of(figure, configurations, range(40))
    assert tally.failures == []
    assert configurations.shortfall(tally) == "0% are accepted; at least 25% should be"
    monkeypatch.setattr(module.resolve, "experiment", crash)
    (failure,) = tally_of(figure, configurations, [3]).failures
    assert failure[0] == 3
    assert "KeyError" in failure[1]


def test_an_experiment_that_does_not_survive_json_is_noticed(figure, monkeypatch, experiment):
    module = figure("configurations")
    assert module.not_the_same(experiment()) == ""
    monkeypatch.setattr(module.resolve, "fingerprint", lambda tables: "another")
    assert "identity" in module.not_the_same(experiment())
    half = replace(experiment(), name="\udcff")
    with pytest.raises(ValueError, match="half a character"):
        module.not_the_same(half)
    to_json = resolve.to_json
    other = {"settings.seed": 2}
    monkeypatch.setattr(module.resolve, "to_json", lambda config: to_json(experiment(other)))
    assert module.not_the_same(experiment()) == "another experiment comes back from its JSON"


def test_hostile_replies_are_refused_or_do_no_harm(figure):
    pytest.importorskip("flwr.serverapp")
    replies = figure("replies").Replies()
    tally = tally_of(figure, replies, range(12))
    assert tally.failures == []
    assert tally.counts["accepted"] > 0
    assert tally.counts["refused"] > 5


def test_an_intake_that_raises_and_a_model_that_is_none_fail(figure, monkeypatch):
    pytest.importorskip("flwr.serverapp")
    replies = figure("replies")
    arrays = replies.federation_of_this_process().arrays
    broken = type(arrays)(dict(arrays))
    assert replies.deformed(broken, arrays) == ""
    broken["head.bias"] = type(arrays["head.bias"])(np.array([1, np.inf, 0], np.float32))
    assert replies.deformed(broken, arrays) == "head.bias of the global model is not finite"
    del broken["head.bias"]
    assert replies.deformed(broken, arrays) == "the global model has other arrays"
    monkeypatch.setattr("entity.flower.arrays.ArrayLayout.read", crash)
    (failure,) = tally_of(figure, replies.Replies(), [0]).failures
    assert "KeyError" in failure[1]


def test_half_written_files_and_differences_are_named(figure, tmp_path, experiment):
    folders = figure("folders")
    config = experiment({"settings.checkpoint_every": 1, "client.ADR": 0.03})
    whole, other = tmp_path / "whole", tmp_path / "other"
    run(config, whole)
    assert folders.half_written(tmp_path) == ""
    shutil.copytree(whole, other)
    assert folders.difference(other, whole) == ""
    for name in ("summary.json", "model.safetensors", "checkpoint/round_0002.safetensors"):
        content = (other / name).read_bytes()
        (other / name).write_bytes(content[: len(content) // 2])
        assert f"{Path(name).stem}." in folders.half_written(tmp_path)
        (other / name).write_bytes(content)
    lines = (other / "rounds.jsonl").read_bytes()
    (other / "rounds.jsonl").write_bytes(lines + b'{"round": 3')  # a kill may leave that
    assert folders.half_written(tmp_path) == ""
    (other / "rounds.jsonl").write_bytes(lines[5:])
    assert "rounds.jsonl is not whole" in folders.half_written(tmp_path)
    (other / "rounds.jsonl").write_bytes(lines.replace(b'"mta": 0.', b'"mta": 1.', 1))
    assert folders.difference(other, whole) == "differs from the undisturbed run in round 1"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("kills", "Kills"), ("flower_kills", "FlowerKills"), ("full_disk", "FullDisk")],
)
def test_cases_that_nothing_disturbed_prove_nothing(figure, name, kind, tmp_path):
    counts = Counter({"signals came too late": 50, "limits": 50, "disk sufficed": 50})
    undisturbed = figure("tally").Tally(50, counts)
    assert getattr(figure(name), kind)(tmp_path).shortfall(undisturbed)


def test_a_failure_is_printed_with_what_repeats_it_and_is_exit_code_1(figure, monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("stress")
    monkeypatch.setattr(figure("configurations").resolve, "experiment", crash)
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "stress.py",
            "--only",
            "configurations",
            "--configurations",
            "1",
            "--jobs",
            "1",
            "--seed",
            "9",
        ],
    )
    assert script.main() == 1
    shown = capsys.readouterr().out
    assert "python benchmarks/stress.py --only configurations --configurations 1 --seed 9" in shown
    assert "configurations: 1 cases, 1 crashed, 1 failed; " in shown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seed", "cases"),
    [
        ("kills", 0, 4),
        ("kills", 7, 1),
        ("kills", 17, 1),
        ("flower-kills", 0, 4),
        ("full-disk", 0, 4),
    ],
)
def test_what_is_killed_or_meets_a_full_disk_goes_on(name, seed, cases):
    done = stress("--only", name, f"--{name}", str(cases), "--seed", str(seed))
    assert done.returncode == 0, done.stdout + done.stderr
    counts = counts_of(done.stdout)
    assert counts["cases"] == cases
    assert counts["failed"] == 0
