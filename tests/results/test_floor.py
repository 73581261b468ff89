"""The floor of an attack is read from its attack-free twin, if that is among the runs."""

import csv
import json

import pytest

from entity import experiment as simulator
from entity.cli import main
from entity.record.json_files import write_json
from entity.results.floor import Judged, floors
from entity.results.store import collect, table
from entity.setup import resolve

NEVER = {"client.attack.participation_strategy": "never"}


@pytest.fixture
def config(tables):
    """Return the complete configuration of a run with these changes, as its folder has it."""
    return lambda changes: resolve.to_json(
        simulator.settled(resolve.experiment(tables({"server.held_out": 500, **changes})))
    )


@pytest.mark.parametrize(
    "attacked",
    [
        {},
        {"client.attack.DPR": 0.5},
        {"client.attack.type": "neurotoxin"},
        {"client.attack.type": "chameleon"},
        {"client.attack.non_iid_equal_distribution": True},
        {
            "client.attack.participation_strategy": "after_convergence",
            "client.attack.poisoning_start_round": 2,
        },
        {"settings.engine": "pool"},  # how it is run, not which run it is
        {"federation.number_of_malicious_clients": 2},
    ],
)
def test_a_run_that_differs_by_its_attack_alone_has_the_twins_asr(config, attacked):
    runs = [Judged(config(attacked), 0.99), Judged(config(NEVER), 0.03)]
    assert floors(runs) == [0.03, None]
    assert floors(runs[::-1]) == [None, 0.03]


@pytest.mark.parametrize(
    "other",
    [
        {"settings.seed": 2},
        {"client.lr": 0.01},
        {"server.defense": {"type": "median"}},
        {"client.attack.trigger_position": "top_right"},
        {"client.attack.target_class": 3},
        {"client.attack.victim_class": None},
        {"client.attack.poison": "blended"},
        {"federation.rounds": 9},
        {"client.IID": False},
    ],
)
def test_what_is_no_twin_gives_no_floor(config, other):
    assert floors([Judged(config(other), 0.99), Judged(config(NEVER), 0.03)]) == [None, None]


def test_the_fields_of_a_data_poison_must_agree_too(config):
    blended = {"client.attack.poison": "blended", "client.attack.blend_opacity": 0.2}
    runs = [Judged(config(blended), 0.9), Judged(config({**blended, **NEVER}), 0.01)]
    assert floors(runs) == [0.01, None]
    runs[1] = Judged(config({**blended, **NEVER, "client.attack.blend_opacity": 0.5}), 0.01)
    assert floors(runs) == [None, None]


def test_the_nearest_twin_goes_before_one_with_another_number_of_attackers(config):
    two = {"federation.number_of_malicious_clients": 2}
    runs = [
        Judged(config(NEVER), 0.01),
        Judged(config({**two, **NEVER}), 0.02),
        Judged(config(two), 0.9),
        Judged(config({}), 0.9),
        Judged(config({"federation.number_of_malicious_clients": 3}), 0.9),
    ]
    assert floors(runs) == [None, None, 0.02, 0.01, 0.01]


def test_runs_without_a_trigger_without_an_asr_and_damaged_ones_give_none(config):
    damaged = [{}, {"client": None}, {"client": {"attack": 3}}, {"client": {"attack": {}}}]
    runs = [Judged(config({}), 0.9), Judged(config({"client.attack": None}), None)]
    runs += [Judged(each, 0.5) for each in damaged]
    runs += [Judged(config(NEVER), None)]
    assert floors(runs) == [None] * len(runs)
    assert floors([]) == []


def test_results_show_the_floor_beside_an_attacked_run(experiment, tmp_path):
    for name, changes in (("attacked", {}), ("clean", NEVER)):
        simulator.run(experiment({"federation.rounds": 1, **changes}), tmp_path / name)
    attacked, clean = runs = collect([tmp_path])
    assert not any("participation" in column.name for column in table(runs).columns)
    assert attacked.facts["floor"] == clean.facts["asr"]
    assert (clean.facts["floor"], clean.facts["attack"]) == (None, "none")
    assert 0 <= clean.facts["victim_accuracy"] <= 1
    found = table([attacked])
    names = [column.name for column in found.columns]
    assert found.rows[0][names.index("floor")] == clean.facts["asr"]


def test_any_mta_can_be_the_acceptable_one_also_of_runs_from_before(keep_rounds, tmp_path, capsys):
    """By hand: MTA 20, 80, 90 % with ASR 99, 60, 10 %; without a summary of the worst."""
    keep_rounds(((0.2, 0.99), (0.8, 0.6), (0.9, 0.1)))
    assert [run.facts["worst_asr"] for run in collect([tmp_path])] == [None]
    for level, worst in (("0.85", "0.1"), ("0.8", "0.6"), ("0", "0.99"), ("1", "")):
        assert main(["results", str(tmp_path), "--acceptable", level, "--format", "csv"]) == 0
        head, row = csv.reader(capsys.readouterr().out.splitlines())
        assert row[head.index("worst_asr")] == worst
    for level in ("1.1", "much", "nan"):
        with pytest.raises(SystemExit, match="2"):
            main(["results", str(tmp_path), "--acceptable", level])
        assert "is no number from 0 to 1" in capsys.readouterr().err


def test_of_a_damaged_record_no_round_is_the_worst_that_is_known(
    keep_rounds, tmp_path, capsys, caplog
):
    keep_rounds(((0.9, 0.1), (0.9, 0.99), (0.9, 0.2)), rounds=3)
    file = tmp_path / "old" / "rounds.jsonl"
    first, _, third = file.read_text().splitlines(keepends=True)
    file.write_text(f"{first}{{\n{third}")
    assert main(["results", str(tmp_path), "--acceptable", "0.5", "--format", "csv"]) == 0
    head, row = csv.reader(capsys.readouterr().out.splitlines())
    assert row[head.index("worst_asr")] == ""
    assert "rounds.jsonl: 1 of its 3 rounds can be read" in caplog.text


@pytest.mark.parametrize("poison", ["a3fl", "iba"])
def test_a_trigger_that_is_learnt_has_no_floor(config, poison):
    changes = {"client.attack.poison": poison}
    runs = [Judged(config(changes), 0.99), Judged(config({**NEVER, **changes}), 0.03)]
    assert floors(runs) == [None, None]


@pytest.fixture
def keep_rounds(config, tmp_path):
    """Write a run directory of an earlier version, with these (MTA, ASR)."""

    def write(rounds, /, **summary):
        folder = tmp_path / "old"
        folder.mkdir()
        write_json(folder / "config.json", config({}))
        write_json(
            folder / "summary.json", {"state": "finished", "asr": {"last10": 0.1}, **summary}
        )
        lines = [{"round": n, "mta": mta, "asr": asr} for n, (mta, asr) in enumerate(rounds, 1)]
        (folder / "rounds.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    return write
