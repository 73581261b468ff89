"""How long runs take, against sums made by hand."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from entity import load
from entity.config.schema import flatten
from entity.results.formatting import clock
from entity.results.store import Run
from entity.setup import resolve
from entity.sweep.cells import expand
from entity.sweep.core_hours import core_hours
from entity.sweep.estimate import Pace, makespan
from entity.sweep.guess import guess
from entity.sweep.study import find

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture
def run(experiment):
    """A finished run of `tiny_tables` with changes, that took so many seconds."""

    def make(seconds, changes=None, state="finished"):
        config = experiment(changes)
        attack = config.client.attack
        facts = {
            "defense": config.server.defense.type,
            "attack": attack.type if attack else "none",
            "seconds": seconds,
            "state": state,
        }
        tables = resolve.to_json(config)
        return Run(Path("x"), facts, dict(flatten(tables)), tables)

    return make


MEDIAN = {"server.defense": {"type": "median"}}


def test_nothing_is_known_of_a_data_set_and_model_without_a_finished_run(run, experiment):
    pace = Pace()
    assert pace.seconds(experiment()) is None
    pace.add(run(10.0, state="running"))
    pace.add(run(None))
    pace.add(run(10.0, {"model": "lenet"}))
    assert pace.seconds(experiment()) is None
    assert pace.runs_like(experiment()) == 0
    pace.add(run(10.0))
    assert pace.seconds(experiment()) == pytest.approx(10.0)
    assert pace.runs_like(experiment()) == 1


def test_rounds_clients_and_epochs_scale(run, experiment):
    pace = Pace()
    pace.add(run(12.0))  # 2 rounds of 3 clients with 1 epoch: 2 seconds each
    assert pace.seconds(experiment({"federation.rounds": 20})) == pytest.approx(120.0)
    assert pace.seconds(experiment({"federation.round_size": 2})) == pytest.approx(8.0)
    assert pace.seconds(experiment({"client.num_epochs": 5})) == pytest.approx(60.0)


def test_the_runs_most_alike_are_judged_by(run, experiment):
    pace = Pace()
    pace.add(run(10.0))
    pace.add(run(20.0))
    pace.add(run(90.0, MEDIAN))
    assert pace.seconds(experiment()) == pytest.approx(15.0)
    assert pace.seconds(experiment(MEDIAN)) == pytest.approx(90.0)
    assert pace.seconds(experiment({"server.defense": {"type": "krum"}})) == pytest.approx(40.0)
    quiet = MEDIAN | {"client.attack": None}
    assert pace.seconds(experiment(quiet)) == pytest.approx(90.0)


def test_of_other_defenses_only_training_and_evaluation_count(run, experiment):
    """Aggregation is each defense's own, and FLIP's clients train in a way of their own."""
    flip = {"server.defense": {"type": "flip"}, "client.num_epochs": 2}
    pace = Pace()
    pace.add(replace(run(90.0, MEDIAN), seconds={"train": 10.0, "aggregate": 78.0}))
    assert pace.seconds(experiment()) == pytest.approx(12.0)
    assert pace.seconds(experiment(MEDIAN)) == pytest.approx(90.0)
    assert pace.seconds(experiment(flip)) is None
    assert pace.runs_like(experiment(flip)) == 0
    pace.add(run(2400.0, flip))
    assert pace.seconds(experiment(flip)) == pytest.approx(2400.0)
    assert pace.seconds(experiment()) == pytest.approx(12.0)


DISTILLED = {"type": "drop", "defense_args": {"K": 2, "distill_iters": 5, "num_seed": 20}}


def test_distillations_count_by_their_number_and_their_length(run, experiment):
    def drop(rounds, **args):
        defense = {"type": "drop", "defense_args": DISTILLED["defense_args"] | args}
        return {"server.defense": defense, "federation.rounds": rounds}

    pace = Pace()
    pace.add(run(12.0))  # 2 seconds for each epoch of a client
    assert pace.seconds(experiment(drop(10))) is None  # nobody has seen a distillation
    assert pace.seconds(experiment(drop(10, K=-1))) == pytest.approx(60.0)
    # 4 rounds of 3 clients, 2 distillations of 5 iterations: 24 s and 40 s
    phases = {"train": 20.0, "aggregate_distill_student": 30.0, "aggregate_distill_generator": 10.0}
    pace.add(replace(run(64.0, drop(4)), seconds=phases))
    assert pace.seconds(experiment(drop(4))) == pytest.approx(64.0)
    assert pace.seconds(experiment(drop(10))) == pytest.approx(60.0 + 5 * 20.0)
    assert pace.seconds(experiment(drop(10, K=5))) == pytest.approx(60.0 + 2 * 20.0)
    assert pace.seconds(experiment(drop(10, K=3, K_start=6))) == pytest.approx(60.0 + 2 * 20.0)
    assert pace.seconds(experiment(drop(10, distill_iters=50))) == pytest.approx(60.0 + 5 * 200.0)
    assert pace.seconds(experiment({"federation.rounds": 10})) == pytest.approx(60.0)


@given(st.lists(st.floats(0, 1e6), max_size=8), st.integers(1, 8))
def test_side_by_side_takes_no_less_than_the_longest_and_no_more_than_one_by_one(seconds, jobs):
    found = makespan(seconds, jobs)
    assert found >= max(seconds, default=0.0)
    assert found <= sum(seconds) * (1 + 1e-9)
    assert found * jobs >= sum(seconds) * (1 - 1e-9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00"), (59.6, "01:00"), (3599, "59:59"), (90061, "25:01:01")]
)
def test_clocks(seconds, text):
    assert clock(seconds) == text


def test_core_hours_by_hand():
    """59,000 images of 50 clients, 25 a round: 0.2 ms each; distillation 6.4 + 0.23 x 16 ms."""
    fields = {"round_size": 25, "rounds": 10, "K": 5, "num_epochs": 2}
    config = load("mnist/drop", **fields)
    training = 10 * 25 * 59_000 / 50 * 2 * 0.2e-3
    distilling = 2 * 60 * 64 * (6.4e-3 + 0.23e-3 * 16)
    assert core_hours(config) == pytest.approx((training + distilling) / 3600)
    early = load("mnist/drop", **fields, plateau=0.02, cycles=10)
    assert core_hours(early) == pytest.approx((training + 0.15 * distilling) / 3600)
    assert core_hours(load("mnist/droplet", round_size=25, rounds=10, num_epochs=2)) == (
        pytest.approx(training / 3600)
    )
    both = 2 * training + 1.15 * distilling
    end = "guessed from seconds an image on one core that nobody else uses"
    assert guess([config, early]) == (f"about {both / 60:.1f} core minutes: {end}", [])
    assert guess([config, early] * 50) == (f"about {50 * both / 3600:.1f} core hours: {end}", [])
    flip = load("mnist/flip")
    assert guess([config, flip]) == (guess([config])[0], [flip])
    assert guess([flip]) == ("", [flip])
    said, left = guess([config, load("cifar10/drop"), load("cifar10/droplet")])
    assert said.startswith("about 2.5 GPU hours, 2.0 of them drop's: guessed from what")
    assert said.endswith(f"; and {guess([config])[0]}")
    assert left == []


def test_the_hours_of_the_ten_configurations_are_what_its_runs_took(tmp_path):
    """By its committed lines, and where a run has none by how much longer the others took."""
    study = find("configurations")
    lines = map(json.loads, (RESULTS / "configurations.jsonl").read_text().splitlines())
    took = {
        (*each["cell"].values(), str(each["seed"])): each["seconds"] / 3600
        for each in lines
        if each["study"] == study.name
    }
    names = ("configuration", "rate", "mcr", "defense", "seed")
    guessed = {
        tuple(cell.labels[name] for name in names): core_hours(cell.config)
        for cell in expand(study.grid, tmp_path / "none")
    }
    slower = sum(took.values()) / sum(guessed[each] for each in took)
    assert study.hours == pytest.approx(slower * sum(guessed.values()) / 2, rel=0.2)


def test_core_hours_count_the_files_of_an_image_folder(tmp_path):
    for part, number in (("train", 3), ("valid", 2), ("test", 5)):
        for name in ("a", "b"):
            folder = tmp_path / "mine" / part / name
            folder.mkdir(parents=True)
            for place in range(number):
                Image.new("RGB", (32, 32)).save(folder / f"{place}.png")
    config = load(
        "cifar10/undefended",
        **{"dataset": "imagefolder:mine", "datasets_path": str(tmp_path), "model": "resnet8"},
        **{"server.held_out": 2, "federation.size": 4, "number_of_malicious_clients": 1},
        **{"round_size": 2, "rounds": 3, "num_epochs": 5, "victim_class": 0, "target_class": 1},
    )
    assert core_hours(config) == pytest.approx(3 * 2 * (10 - 2) / 4 * 5 * 1.3e-3 / 3600)


def test_clients_with_less_data_each_take_less(run, experiment):
    """Regression: ten times as many clients of the same data were thought to take ten times."""
    pace = Pace()
    pace.add(run(12.0, {"federation.size": 4, "federation.round_size": 4}))
    many = experiment({"federation.size": 40, "federation.round_size": 40})
    assert pace.seconds(many) == pytest.approx(12.0)
    half = experiment({"federation.size": 40, "federation.round_size": 20, "client.ADR": 0.05})
    assert pace.seconds(half) == pytest.approx(3.0)
