"""The federated loop and its record, on a federation that takes a second."""

import json
import logging
import math
from pathlib import Path
from statistics import fmean
from typing import ClassVar

import pytest
import torch

import entity.experiment as loop
from entity import __version__
from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.defenses import DEFENSES, Undefended
from entity.engine import Inline
from entity.experiment import run
from entity.record import directory
from entity.report.runs import read_run
from entity.results import store
from entity.results.watch import refused_of
from entity.seeding import Seeds
from entity.server import Needs
from entity.setup import resolve
from entity.setup.assembly import recruit
from entity.trackers.process import numbers_of

LINE = {
    *("round", "mta", "asr", "n_selected", "n_malicious", "accepted", "refused", "reasons"),
    *("seconds", "diagnostics"),
}
TINY_DROP = {
    "type": "drop",
    "defense_args": {
        **{"K": 2, "distill_iters": 2, "batch_size": 8, "num_seed": 20, "iter_clone": 1},
        **{"iter_exp": 1, "gen_width": 4, "dis_width": 4},
    },
}


def without_times(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(experiment, tmp_path_factory):
    """Twelve rounds with a defense, an attack in the rounds 3 to 9, and a rejection threshold."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "run"
    config = experiment(
        {
            "client.ADR": 0.05,
            "client.attack.participation_strategy": "after_convergence",
            "client.attack.poisoning_start_round": 3,
            "client.attack.poisoning_end_round": 10,
            "server.defense": {"type": "droplet"},
            "server.low_confidence_threshold": 0.4,
            "federation.size": 5,
            "federation.number_of_malicious_clients": 2,
            "federation.rounds": 12,
        }
    )
    return run(config, folder)


@pytest.fixture(scope="module")
def lines(finished):
    text = (finished.folder / "rounds.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def summary(finished):
    return json.loads((finished.folder / "summary.json").read_text())


# --- the record


def test_a_run_directory_holds_config_rounds_and_summary(finished):
    names = {path.name for path in finished.folder.iterdir()}
    assert {"config.json", "rounds.jsonl", "summary.json"} <= names
    assert not [name for name in names if name.endswith(".part")]


def test_a_line_a_round_with_who_was_there_and_what_was_thought_of_them(lines):
    assert [line["round"] for line in lines] == list(range(1, 13))
    for line in lines:
        assert set(line) >= LINE
        assert line["n_selected"] == len(line["selected"]) == 3
        assert sorted(line["accepted"] + line["refused"]) == line["selected"]
        assert set(line["reasons"]) == {str(client) for client in line["refused"]}
        assert all(line["reasons"].values())
        assert line["n_malicious"] == len(line["malicious"])
        assert 0 <= line["mta"] <= 1
        assert 0 <= line["asr"] <= 1
        assert {"train", "aggregate", "evaluate"} <= set(line["seconds"])
        assert all(value >= 0 for value in line["seconds"].values())
        assert line["seconds"]["aggregate_cluster"] <= line["seconds"]["aggregate"]
        assert "clean_conditional" in line["metrics"]
        shares = [share for share in line["weights"].values() if share]
        assert not line["accepted"] or sum(shares) == pytest.approx(1)
        assert len(shares) == len(line["accepted"])


def test_malicious_are_those_who_poisoned_in_that_round(finished, lines):
    inside, outside = lines[2:9], lines[:2] + lines[9:]
    assert all(line["malicious"] == [] for line in outside)
    ever = {client for line in inside for client in line["malicious"]}
    assert len(ever) == 2
    for line in inside:
        assert set(line["malicious"]) == ever & set(line["selected"])


def test_the_summary_says_what_was_run_and_what_came_out(finished, lines, summary):
    config = finished.config
    assert (summary["dataset"], summary["model"]) == ("mnist5k", "cnn")
    assert (summary["attack"], summary["defense"]) == ("badnets", "droplet")
    assert (summary["seed"], summary["rounds"], summary["state"]) == (1, 12, "finished")
    assert summary["config_hash"] == resolve.identity(config)
    assert summary["version"] == __version__
    assert summary["name"] == "mnist5k-droplet-badnets-seed1"
    for metric in ("mta", "asr"):
        assert summary[metric]["final"] == lines[-1][metric]
        assert summary[metric]["last10"] == pytest.approx(fmean(x[metric] for x in lines[2:]))
    assert summary["asr_max_last10"] == max(line["asr"] for line in lines[2:])
    assert summary["peak_memory_mb"] > 50
    assert finished.summary["mta"] == summary["mta"]


def test_the_summarys_seconds_are_those_of_the_rounds_by_phase(lines, summary):
    for phase in ("train", "aggregate", "evaluate"):
        total = sum(line["seconds"][phase] for line in lines)
        assert summary["seconds"][phase] == pytest.approx(total, abs=2e-3)
    phases = [summary["seconds"][phase] for phase in ("train", "aggregate", "evaluate")]
    assert summary["seconds"]["total"] == pytest.approx(sum(phases), abs=2e-3)


def test_the_summarys_detection_is_counted_by_hand_from_the_rounds(lines, summary):
    caught = sum(len(set(line["malicious"]) & set(line["refused"])) for line in lines)
    poisoned = sum(line["n_malicious"] for line in lines)
    refused = sum(len(line["refused"]) for line in lines)
    everybody = sum(line["n_selected"] for line in lines)
    assert refused > 0
    found = summary["detection"]
    assert found["tpr"] == pytest.approx(caught / poisoned)
    assert found["fpr"] == pytest.approx((refused - caught) / (everybody - poisoned))
    assert summary["refusals"] == refused


def test_config_json_is_the_same_experiment(finished):
    data = json.loads((finished.folder / "config.json").read_text())
    again = resolve.experiment(data)
    assert again == finished.config
    assert resolve.identity(again) == finished.summary["config_hash"]


def test_the_result_is_what_the_record_holds(finished, lines):
    assert finished.rounds == lines
    assert finished.state.weights.isfinite().all()


def test_artifacts_belong_to_the_rounds_that_made_them(experiment, tmp_path):
    result = run(experiment({"server.defense": TINY_DROP, "federation.rounds": 2}), tmp_path)
    kept = sorted(path.name for path in (tmp_path / "artifacts").iterdir())
    assert "round_0002.safetensors" in kept
    assert "distill" in " ".join(result.rounds[1]["seconds"])
    assert "aggregate_distill" not in result.rounds[0]["seconds"]


# --- the same again


@pytest.mark.parametrize("defense", [None, TINY_DROP])
def test_the_same_seed_gives_the_same_run_but_for_the_times(experiment, tmp_path, defense):
    config = experiment({"server.defense": defense, "client.transform": True})
    one, two = (run(config, tmp_path / name) for name in "ab")
    texts = [(tmp_path / name / "rounds.jsonl").read_text().splitlines() for name in "ab"]
    first, second = (without_times(map(json.loads, text)) for text in texts)
    assert first == second
    assert torch.equal(one.state.weights, two.state.weights)
    assert torch.equal(one.state.buffers, two.state.buffers)


def test_another_seed_gives_another_run(experiment):
    one = run(experiment())
    two = run(experiment({"settings.seed": 2}))
    assert without_times(one.rounds) != without_times(two.rounds)
    assert not torch.equal(one.state.weights, two.state.weights)


def test_the_global_stream_is_neither_used_nor_moved(experiment):
    torch.manual_seed(1)
    one = run(experiment())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    two = run(experiment())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.state.weights, two.state.weights)


def test_evaluating_less_often_changes_nothing_else(experiment):
    every = run(experiment({"federation.rounds": 5}))
    some = run(experiment({"federation.rounds": 5, "settings.eval_every": 2}))
    assert [line["mta"] is None for line in some.rounds] == [True, False, True, False, False]
    assert [line["asr"] is None for line in some.rounds] == [True, False, True, False, False]
    assert torch.equal(every.state.weights, some.state.weights)
    assert some.summary["mta"]["final"] == every.summary["mta"]["final"]
    evaluated = [every.rounds[number - 1]["mta"] for number in (2, 4, 5)]
    assert some.summary["mta"]["last10"] == pytest.approx(fmean(evaluated))


# --- what a run does with what it is given


def test_without_an_attack_nobody_is_malicious_and_there_is_no_asr(experiment):
    result = run(experiment({"client.attack": None, "federation.number_of_malicious_clients": 3}))
    assert all(line["asr"] is None and line["n_malicious"] == 0 for line in result.rounds)
    assert result.summary["attack"] is None
    assert result.summary["asr"]["final"] is None
    assert result.summary["asr_max_last10"] is None
    assert math.isnan(result.summary["detection"]["tpr"])
    assert result.summary["detection"]["fpr"] == 0.0


def test_training_learns_and_the_attack_works(experiment):
    """With an honest federation digits are read; with an attacked one a stamped 0 is a 7."""
    changes = {"client.ADR": 0.3, "client.num_epochs": 2, "client.batch_size": 16}
    changes |= {"federation.rounds": 3}
    honest = run(experiment({**changes, "client.attack": None}))
    assert honest.rounds[-1]["mta"] > 0.7
    everybody = {"federation.number_of_malicious_clients": 4}
    attacked = run(experiment({**changes, **everybody}))
    assert attacked.rounds[-1]["asr"] > 0.7


def test_servers_are_handed_what_they_need_and_nothing_else(experiment, monkeypatch):
    seen = []

    class Spy(Undefended):
        asks = Needs()

        @classmethod
        def needs(cls, args):
            return cls.asks

        def __init__(self, args, resources):
            super().__init__(args, resources)
            seen.append(resources)

    monkeypatch.setitem(DEFENSES, "undefended", Spy)
    one_round = {"federation.rounds": 1, "client.ADR": 0.05}
    run(experiment(one_round))
    assert seen[-1].clean is None
    assert seen[-1].malicious_count is None
    assert seen[-1].federation_size == 4
    monkeypatch.setattr(Spy, "asks", Needs(clean_data=True, true_malicious_count=True))
    run(experiment(one_round))
    assert len(seen[-1].clean.y) == 50
    assert seen[-1].malicious_count == 1
    source = DATASETS["mnist5k"]
    _, test = source.read(Path(), Seeds(1))
    held = {image.tobytes() for image in (seen[-1].clean.x * 127.5 + 127.5).round().byte().numpy()}
    assert not held & {image.tobytes() for image in test.x.numpy()}


def test_clean_data_of_the_server_is_in_no_clients_data(experiment):
    split, roster = recruit(experiment({"client.ADR": 1.0}), Seeds(1))
    held = {image.tobytes() for image in split.server.x.numpy()}
    used = {image.tobytes() for image in split.train.x[roster.shares.index].numpy()}
    tested = {image.tobytes() for image in split.test.x.numpy()}
    assert not held & used
    assert not tested & (held | used)
    assert len(roster.shares.index) == 3950


def test_the_broadcast_tells_the_global_weights_of_the_round_before(experiment, monkeypatch):
    sent = []
    train = Inline.train

    def watched(self, broadcast, client_ids):
        sent.append((broadcast.state.weights.clone(), broadcast.previous))
        return train(self, broadcast, client_ids)

    monkeypatch.setattr(Inline, "train", watched)
    run(experiment({"federation.rounds": 3}))
    assert sent[0][1] is None
    assert torch.equal(sent[1][1], sent[0][0])
    assert torch.equal(sent[2][1], sent[1][0])


def test_pretraining_starts_from_a_model_that_has_seen_the_clean_data(experiment):
    changes = {"server.held_out": 500, "server.defense": {"pretrain": True}}
    changes |= {"client.num_epochs": 3, "federation.rounds": 1, "client.lr": 0.1}
    plain = {**changes, "server.defense": None}
    assert run(experiment(changes)).rounds[0]["mta"] > run(experiment(plain)).rounds[0]["mta"] + 0.1


def test_every_round_is_told_and_nothing_is_written_without_a_folder(
    experiment, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    told = []
    result = run(experiment(), on_round=told.append)
    assert told == result.rounds
    assert result.folder is None
    assert not list(tmp_path.iterdir())


def test_the_number_of_threads_is_recorded_and_put_back(experiment, tmp_path):
    before = torch.get_num_threads()
    changes = {"settings.num_threads": 0, "federation.rounds": 1, "client.ADR": 0.05}
    result = run(experiment(changes), tmp_path)
    assert torch.get_num_threads() == before
    recorded = json.loads((tmp_path / "config.json").read_text())["settings"]["num_threads"]
    assert recorded == result.config.settings.num_threads >= 1


def test_an_attack_that_poisons_no_sample_is_said(experiment, caplog):
    with caplog.at_level(logging.WARNING, "entity"):
        result = run(experiment({"client.attack.DPR": 0.001}))
    assert "poisons no sample of any malicious client" in caplog.text
    assert all(line["n_malicious"] == 0 for line in result.rounds)


# --- what goes wrong


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"federation.size": 5000}, "federation.size = 5000: allowed is at most"),
        ({"server.held_out": 4000}, "server.held_out = 4000: allowed is"),
        ({"client.IID": False, "client.min_samples": 300}, "client.min_samples = 300: allowed is"),
    ],
)
def test_what_only_the_data_can_refuse_leaves_no_run_directory(
    experiment, tmp_path, changes, sentence
):
    with pytest.raises(ConfigError) as refusal:
        run(experiment(changes), tmp_path / "runs" / "x")
    assert str(refusal.value).startswith(sentence)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_a_run_is_kept_unless_told(experiment, tmp_path):
    quick = {"federation.rounds": 1, "client.ADR": 0.05}
    run(experiment(quick), tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="already holds a run"):
        run(experiment({**quick, "settings.seed": 2}), tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    run(experiment({**quick, "settings.seed": 2}), tmp_path, overwrite=True)
    assert json.loads((tmp_path / "summary.json").read_text())["seed"] == 2
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_finished_rounds_stay_and_the_summary_says_interrupted(experiment, tmp_path, error):
    def stop(line):
        if line["round"] == 2:
            raise error

    with pytest.raises(error):
        run(experiment({"federation.rounds": 9}), tmp_path, on_round=stop)
    lines = (tmp_path / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, 2]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["state"], summary["rounds"]) == ("interrupted", 2)


def test_a_run_stopped_before_its_first_round_says_so_too(experiment, tmp_path, monkeypatch):
    def stop(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "play_round", stop)
    with pytest.raises(KeyboardInterrupt):
        run(experiment(), tmp_path)
    assert (tmp_path / "rounds.jsonl").read_text() == ""
    assert json.loads((tmp_path / "summary.json").read_text())["state"] == "interrupted"


def test_an_engine_that_is_refused_changes_nothing(experiment, tmp_path, monkeypatch):
    """Regression: a finished run had been deleted or cut before its cluster could not be joined."""

    def refuse(*args):
        raise ConfigError("settings.ray_address = auto: no cluster can be joined.")

    fresh, old = tmp_path / "fresh", tmp_path / "old"
    quick = {"federation.rounds": 1, "client.ADR": 0.05}
    run(experiment(quick), old)
    before = {path: path.read_bytes() for path in old.rglob("*") if path.is_file()}
    monkeypatch.setattr(loop, "open_engine", refuse)
    more = {**quick, "federation.rounds": 2}
    for folder, config, how in [
        (fresh, quick, {}),
        (old, quick, {"overwrite": True}),
        (old, more, {"resume": True}),
    ]:
        with pytest.raises(ConfigError, match="no cluster"):
            run(experiment(config), folder, **how)
    assert not fresh.exists()
    assert {path: path.read_bytes() for path in old.rglob("*") if path.is_file()} == before


def test_a_finished_run_is_not_called_finished_once_it_is_begun_again(
    experiment, tmp_path, monkeypatch
):
    """Regression: killed between its new config and its new summary, it was, with more rounds."""
    quick = {"federation.rounds": 1, "client.ADR": 0.05}
    run(experiment(quick), tmp_path)
    monkeypatch.setattr(directory, "_forget_the_end", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(experiment({**quick, "federation.rounds": 2}), tmp_path, resume=True)
    assert json.loads((tmp_path / "summary.json").read_text())["state"] == "running"
    assert not store.read_row(tmp_path).finished
    monkeypatch.undo()
    again = run(experiment({**quick, "federation.rounds": 2}), tmp_path, resume=True)
    assert [line["round"] for line in again.rounds] == [1, 2]
    assert store.read_row(tmp_path).finished


def test_while_it_runs_the_summary_says_running(experiment, tmp_path):
    states = []
    run(
        experiment(),
        tmp_path,
        on_round=lambda line: states.append(
            json.loads((tmp_path / "summary.json").read_text())["state"]
        ),
    )
    assert states == ["running", "running"]


class Loses(Inline):
    """Loses one client of every round, as the pool does whose worker died twice."""

    lost: ClassVar[list[int]] = []

    def run(self, broadcast, client_ids, deliver):
        gone = min(self.roster.malicious.intersection(client_ids), default=client_ids[0])
        self.lost.append(gone)
        super().run(
            broadcast,
            client_ids,
            lambda row: None if client_ids[row] == gone else deliver(row),
        )


@pytest.mark.parametrize("streaming", [False, True])
def test_a_client_whose_worker_died_is_refused_in_no_statistic(
    experiment, tmp_path, monkeypatch, streaming
):
    """One of two attackers is lost in each round, and the other is accepted: the TPR is 0."""
    monkeypatch.setattr(loop, "open_engine", Loses)
    Loses.lost = []
    both = {"federation.round_size": 4, "federation.number_of_malicious_clients": 2}
    result = run(experiment({**both, "settings.streaming": streaming}), tmp_path)
    for line, lost in zip(result.rounds, Loses.lost, strict=True):
        assert line["lost"] == [lost]
        for name in ("selected", "malicious", "accepted", "refused"):
            assert lost not in line[name]
        assert not {str(lost), lost} & {*line["weights"], *line["reasons"], *line["scores"]}
        assert (line["n_selected"], line["n_malicious"]) == (3, 1)
        assert sum(line["weights"].values()) == pytest.approx(1)
        assert "gate_refused" not in line["diagnostics"]
    summary = result.summary
    assert (summary["refusals"], summary["lost"]) == (0, 2)
    assert (summary["detection"]["tpr"], summary["detection"]["fpr"]) == (0, 0)
    entry = read_run(tmp_path)
    assert sum(len(each.selected) for each in entry.rounds) == 6
    assert not any(each.refused for each in entry.rounds)
    assert refused_of(result.rounds[0], 40) == "0"
    assert numbers_of(result.rounds[0])["selected"] == 3


def test_a_round_without_a_loss_says_nothing_of_losses(experiment):
    result = run(experiment())
    assert not any("lost" in line for line in result.rounds)
    assert result.summary["lost"] == 0
