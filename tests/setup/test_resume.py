"""A run that was stopped, however that was, ends with the numbers of one that never was."""

import hashlib
import json
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from updates_by_hand import Crowd

import entity.experiment as loop
from entity.attacks import ATTACKS
from entity.cli import main
from entity.config.schema import ConfigError
from entity.config.shipped import shipped
from entity.defenses import DEFENSES
from entity.experiment import run
from entity.metrics import Detection
from entity.poisons import POISONS
from entity.record import checkpoint
from entity.record.directory import RunExists
from entity.record.packing import pack, unpack
from entity.seeding import Seeds
from entity.setup import journal, resolve, resume
from entity.setup.assembly import assemble, open_server, recruit
from entity.setup.resume import recorded, resumed
from entity.updates import Updates

CHEAP = {
    "client.ADR": 0.03,
    "federation.size": 6,
    "federation.number_of_malicious_clients": 2,
    "federation.round_size": 4,
    "federation.rounds": 6,
    "settings.eval_every": 3,
    "settings.checkpoint_every": 2,
}
TINY_DROP = {
    "type": "drop",
    "defense_args": {
        **{"K": 2, "distill_iters": 2, "batch_size": 8, "num_seed": 20, "iter_clone": 1},
        **{"iter_exp": 1, "gen_width": 4, "dis_width": 4, "random_weight_S": 0.5},
        **{"random_weight_G": 0.5, "random_weight_D": 0.5, "reschedule": True},
    },
}
QUICK = {"cycles": 2, "plateau": 0.1, "channels_last": True, "min_agreement": 0.01, "iter_dis": 1}
TINY_FAST_DROP = {"type": "drop", "defense_args": {**TINY_DROP["defense_args"], **QUICK}}
TINY_FLIP = {
    "type": "flip",
    "defense_args": {
        **{"size_min": 1, "trigger_steps": [6, 6, 6], "attack_succ_threshold": 0.05},
        **{"trigger_size_check_threshold": 1.0, "trigger_lr": 1.0},
    },
}
CASES = {
    "undefended": {},
    "drop": {"server.defense": TINY_DROP},
    "drop, fast": {"server.defense": TINY_FAST_DROP},
    "foolsgold": {"server.defense": {"type": "foolsgold"}},
    "crfl": {"server.defense": {"type": "crfl"}},
    "fedyogi": {"server.optimiser": "fedyogi", "server.server_lr": 0.01},
    "neurotoxin": {
        "client.attack": {
            **{"type": "neurotoxin", "DPR": 1.0, "victim_class": 0, "target_class": 7},
            "neurotoxin_top_k": 0.3,
        }
    },
    "flip": {"server.defense": TINY_FLIP, "client.batch_size": 4},
}
SLOW = ("crfl", "flip")
NOBODY = {"points": [], "blacklist": []}
CHEAP_ARGS = {
    "drop": TINY_DROP["defense_args"],
    "crowdguard": {"voters": 3, "samples": 20},
    "deepsight": {"num_samples": 100, "num_seeds": 1},
    "flare": {"num_seed": 10},
    "finetuning": {"num_seed": 20, "epochs": 1},
    "backdoor_indicator": {"num_indicator": 16, "epochs": 1},
    "snowball": {"vae_initial": 2, "vae_tuning": 1},
}


def by_cost(case):
    return pytest.param(case, marks=pytest.mark.slow) if case in SLOW else case


@pytest.fixture(scope="module")
def cheap(experiment):
    return lambda changes=None: experiment({**CHEAP, **(changes or {})})


@pytest.fixture(scope="module")
def whole(cheap, tmp_path_factory):
    """The run of a case that nothing ever stopped."""

    @cache
    def whole(case="undefended"):
        return run(cheap(CASES[case]), tmp_path_factory.mktemp("whole"))

    return whole


def stop_after(number, error=KeyboardInterrupt):
    def stop(line):
        if line["round"] == number:
            raise error

    return stop


def copies(of, into):
    """Return an `on_round` that copies the folder after every round: what a kill would leave."""
    return lambda line: shutil.copytree(of, into / str(line["round"]))


@pytest.fixture(scope="module")
def remains(cheap, tmp_path_factory):
    """Folders as they are when the undefended run is killed after each of its rounds."""
    folder, into = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("remains")
    run(cheap(), folder, on_round=copies(folder, into))
    return into


@pytest.fixture
def left(remains, tmp_path):
    """A folder of a run killed after round 5, whose last checkpoint is of round 4."""
    return Path(shutil.copytree(remains / "5", tmp_path / "run"))


def lines_of(folder):
    return [json.loads(text) for text in (folder / "rounds.jsonl").read_text().splitlines()]


def without_times(lines):
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def lasting(summary):
    passing = {"seconds", "peak_memory_mb", "worker_peak_memory_mb"}
    return {name: value for name, value in summary.items() if name not in passing}


def assert_same(folder, other):
    """Check that two finished runs left the same, but for what is measured by a clock."""
    assert without_times(lines_of(folder)) == without_times(lines_of(other))
    one, two = (json.loads((each / "summary.json").read_text()) for each in (folder, other))
    assert lasting(one) == lasting(two)
    assert one["state"] == "finished"
    one, two = ((each / "model.safetensors").read_bytes() for each in (folder, other))
    assert one == two
    artifacts = [sorted(path.name for path in each.glob("artifacts/*")) for each in (folder, other)]
    assert artifacts[0] == artifacts[1]
    assert not list(folder.rglob("*.part"))


# --- equality


@pytest.mark.parametrize("case", [by_cost(case) for case in CASES])
def test_a_run_that_was_interrupted_ends_with_the_same_bits(cheap, whole, tmp_path, case):
    with pytest.raises(KeyboardInterrupt):
        run(cheap(CASES[case]), tmp_path, on_round=stop_after(3))
    stopped = json.loads((tmp_path / "summary.json").read_text())
    assert (stopped["state"], stopped["rounds"]) == ("interrupted", 3)
    assert not (tmp_path / "model.safetensors").exists()
    told = []
    result = run(recorded(tmp_path), tmp_path, on_round=told.append, resume=True)
    assert [line["round"] for line in told] == [4, 5, 6]  # nothing is computed twice
    assert_same(tmp_path, whole(case).folder)
    assert torch.equal(result.state.weights, whole(case).state.weights)
    assert torch.equal(result.state.buffers, whole(case).state.buffers)
    assert without_times(result.rounds) == without_times(whole(case).rounds)


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("foolsgold", {"server": {"clients": [], "histories": []}}),
        ("fedyogi", {"server": {}}),
        ("neurotoxin", {"previous": None}),
        pytest.param("flip", {"clients": {}}, marks=pytest.mark.slow),
        ("drop", {"server": {"activity": NOBODY, "typical": [], "due": False, "previous": {}}}),
        ("drop", {"detection": {}}),
    ],
)
def test_each_part_of_a_checkpoint_matters(cheap, whole, tmp_path, monkeypatch, case, part):
    """Without it the end would be another, so the equality above says something."""
    expected = whole(case)
    with pytest.raises(KeyboardInterrupt):
        run(cheap(CASES[case]), tmp_path, on_round=stop_after(3))
    monkeypatch.setattr(journal, "resumed", lambda *args: replace(resumed(*args), **part))
    result = run(recorded(tmp_path), tmp_path, resume=True)
    if "detection" in part:
        assert result.summary["refusals"] < expected.summary["refusals"]
    else:
        assert not torch.equal(result.state.weights, expected.state.weights)


@cache
def world():
    config = resolve.experiment(resolve.read(shipped("mnist5k/undefended")), [("cuda", "-1")])
    return recruit(config, Seeds(1))


def made_up(roster, number):
    """A round in which ten clients move at random, four of them together."""
    spec, rng = roster.spec, Seeds(number).generator("made up")
    state = spec.flatten(roster.new_model())
    moves = torch.randn(10, spec.num_parameters, generator=rng)
    moves[:4] = moves[0] + 0.1 * moves[:4]
    ids = tuple(range(number % 2, 20, 2))
    size = torch.arange(10) + 5
    buffers = state.buffers.repeat(10, 1)
    return Updates(number, ids, state.weights + 0.01 * moves, buffers, size, *state, spec)


@pytest.mark.parametrize("defense", DEFENSES)
def test_every_defense_goes_on_from_its_state_and_leaves_that_alone(defense):
    tables = resolve.read(shipped(f"mnist5k/{defense}"))
    if defense in CHEAP_ARGS:
        tables["server"]["defense"]["defense_args"] = CHEAP_ARGS[defense]
    config = resolve.experiment(tables, [("cuda", "-1")])
    split, roster = world()
    roster = replace(roster, config=config)
    one, two = (open_server(config, split, roster) for _ in range(2))
    if one.resources.electorate is not None:  # of ten clients, and the updates have other ids
        for server in (one, two):
            server.resources = replace(server.resources, electorate=Crowd((1, 28), 10))
    for number in (1, 2):
        one.aggregate(made_up(roster, number))
    state = one.state_dict()
    tree, tensors = pack(state)
    then = json.dumps(tree), {name: tensor.clone() for name, tensor in tensors.items()}
    two.load_state_dict(unpack(json.loads(then[0]), then[1]))
    for number in (3, 4):
        updates = made_up(roster, number)
        expected, got = one.aggregate(updates), two.aggregate(updates)
        assert torch.equal(expected.weights, got.weights)
        assert torch.equal(expected.buffers, got.buffers)
        assert repr(expected.verdicts) == repr(got.verdicts)  # a share may be NaN
        assert repr(expected.diagnostics) == repr(got.diagnostics)
    tree, tensors = pack(state)  # taken after round 2, and perhaps written after round 4
    assert json.dumps(tree) == then[0]
    assert all(torch.equal(tensor, then[1][name]) for name, tensor in tensors.items())


# --- kills


@pytest.mark.parametrize("number", [1, 2, 3, 6])
def test_rounds_after_the_last_checkpoint_are_cut_off_and_computed_again(
    remains, whole, tmp_path, number
):
    folder = Path(shutil.copytree(remains / str(number), tmp_path / "run"))
    before = (folder / "rounds.jsonl").read_bytes()
    assert before.count(b"\n") == number
    told = []
    run(recorded(folder), folder, on_round=told.append, resume=True)
    first = number - number % 2 + 1
    assert [line["round"] for line in told] == list(range(first, 7))
    kept = b"".join(before.splitlines(keepends=True)[: first - 1])
    assert (folder / "rounds.jsonl").read_bytes().startswith(kept)  # times included
    assert_same(folder, whole().folder)


@pytest.mark.parametrize(
    ("tail", "first"),
    [
        (b'{"round": 6, "mta": 0.', 5),
        (b'{"round": 6, "mta": 0.5, "asr": 0.5}', 5),  # whole, but for the end of the line
        (b"\xff\xfe\x00\n", 5),
        (b'{"round": 9}\n', 5),
        (b"[]\n", 5),
        (b'"round"\n', 5),
    ],
)
def test_a_half_written_last_line_is_tolerated(left, whole, tail, first):
    with (left / "rounds.jsonl").open("ab") as file:
        file.write(tail)
    told = []
    run(recorded(left), left, on_round=told.append, resume=True)
    assert told[0]["round"] == first
    assert_same(left, whole().folder)


def test_a_record_that_ends_before_the_checkpoint_takes_the_one_before(left, whole, caplog):
    text = (left / "rounds.jsonl").read_bytes().splitlines(keepends=True)
    (left / "rounds.jsonl").write_bytes(b"".join(text[:2]) + b"damaged\n" + b"".join(text[3:]))
    told = []
    run(recorded(left), left, on_round=told.append, resume=True)
    assert told[0]["round"] == 3
    assert "round_0004.json passed over: the record ends before" in caplog.text
    assert_same(left, whole().folder)


def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(left, whole, caplog):
    os.truncate(left / "checkpoint" / "round_0004.safetensors", 100)
    told = []
    run(recorded(left), left, on_round=told.append, resume=True)
    assert told[0]["round"] == 3
    assert "round_0004.json passed over: it is damaged (" in caplog.text
    assert_same(left, whole().folder)


@pytest.mark.parametrize("lost", ["checkpoint", "rounds.jsonl", "everything but the config"])
def test_without_a_checkpoint_it_starts_again_in_the_same_folder(left, whole, lost):
    for path in left.iterdir():
        if path.name == lost or (lost.startswith("every") and path.name != "config.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = []
    run(recorded(left), left, on_round=told.append, resume=True)
    assert told[0]["round"] == 1
    assert_same(left, whole().folder)


def test_pictures_of_rounds_that_are_cut_off_go_too(left):
    (left / "artifacts").mkdir()
    for name in ("round_0003.safetensors", "round_0005.safetensors", "round_0006.safetensors.part"):
        (left / "artifacts" / name).write_bytes(b"x")
    run(recorded(left), left, resume=True)
    kept = {path.name for path in left.glob("artifacts/*")}
    assert kept == {"round_0003.safetensors", "example.safetensors"}


def test_a_run_killed_between_its_last_round_and_its_end_is_finished(remains, whole, tmp_path):
    folder = Path(shutil.copytree(remains / "6", tmp_path / "run"))
    assert not (folder / "model.safetensors").exists()
    told = []
    run(recorded(folder), folder, on_round=told.append, resume=True)
    assert told == []
    assert_same(folder, whole().folder)


def test_interrupted_in_the_middle_of_a_round_it_goes_on_after_the_one_before(
    cheap, whole, tmp_path, monkeypatch
):
    """The defense has seen half a round then, and a checkpoint must not know."""
    aggregate = DEFENSES["foolsgold"].aggregate

    def stopped(self, updates):
        answer = aggregate(self, updates)
        if updates.round == 4:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(DEFENSES["foolsgold"], "aggregate", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(cheap({**CASES["foolsgold"], "settings.checkpoint_every": 0}), tmp_path)
    monkeypatch.undo()
    told = []
    run(recorded(tmp_path), tmp_path, on_round=told.append, resume=True)
    assert told[0]["round"] == 4
    assert_same(tmp_path, whole("foolsgold").folder)


def test_a_run_may_be_stopped_again_and_again(cheap, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(cheap(CASES["drop"]), tmp_path, on_round=stop_after(1))
    for number in (2, 3, 5):
        with pytest.raises(ZeroDivisionError):
            run(
                recorded(tmp_path),
                tmp_path,
                on_round=stop_after(number, ZeroDivisionError),
                resume=True,
            )
    run(recorded(tmp_path), tmp_path, resume=True)
    assert_same(tmp_path, whole("drop").folder)


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_as_if_it_had_not_been(cheap, tmp_path):
    """SIGKILL, in whatever the run is doing: starting, training, writing, renaming."""
    config = cheap(
        {
            "server.defense": {"type": "droplet"},
            "client.ADR": 0.02,
            "federation.rounds": 80,
            "settings.eval_every": 20,
            "settings.checkpoint_every": 3,
        }
    )
    expected = run(config, tmp_path / "whole")
    folder = tmp_path / "run"
    rng = random.Random(6)
    processes = multiprocessing.get_context("forkserver")  # imports torch once, not ten times
    processes.set_forkserver_preload(["entity.experiment"])
    reached = []
    for _ in range(10):
        begun = (folder / "config.json").exists()
        before = finished_rounds(folder)
        process = processes.Process(
            target=run, args=(config, folder), kwargs={"resume": begun, "overwrite": not begun}
        )
        process.start()
        if rng.random() < 0.7:
            wait_until(lambda now=before: finished_rounds(folder) != now)
            time.sleep(rng.uniform(0, 0.2))
        else:
            time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        reached.append(finished_rounds(folder))
    assert 0 < max(reached) < 80
    run(config, folder, resume=True)
    assert_same(folder, expected.folder)


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


def finished_rounds(folder):
    path = folder / "rounds.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


# --- what may change, and what may not


@pytest.mark.slow
def test_on_another_engine_it_ends_the_same_with_what_clients_remember(cheap, whole, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(cheap(CASES["flip"]), tmp_path, on_round=stop_after(3))
    pool = recorded(tmp_path, [("engine", "pool"), ("workers", "1")])
    with pytest.raises(KeyboardInterrupt):
        run(pool, tmp_path, on_round=stop_after(5), resume=True)
    assert recorded(tmp_path) == pool
    run(recorded(tmp_path, [("engine", "inline")]), tmp_path, resume=True)
    assert_same(tmp_path, whole("flip").folder)


def test_other_runtime_settings_change_nothing(left, whole):
    words = [("datasets_path", "."), ("checkpoint_every", "0"), ("verbose", "false")]
    run(recorded(left, words), left, resume=True)
    assert_same(left, whole().folder)


@pytest.mark.parametrize("finished", [False, True])
def test_more_rounds_end_as_a_run_that_was_begun_with_them(cheap, remains, tmp_path, finished):
    longer = run(cheap({"federation.rounds": 9}), tmp_path / "longer")
    folder = Path(shutil.copytree(remains / "5", tmp_path / "run"))
    if finished:
        run(recorded(folder), folder, resume=True)
    told = []
    run(recorded(folder, [("rounds", "9")]), folder, on_round=told.append, resume=True)
    assert told[0]["round"] == (7 if finished else 5)
    assert_same(folder, longer.folder)
    assert recorded(folder) == longer.config


def test_what_only_the_last_round_had_is_forgotten_with_more_rounds(cheap, tmp_path):
    config = cheap({"federation.rounds": 4})  # evaluated every third round, and in the last
    folder = tmp_path / "run"
    run(config, folder)
    longer = run(cheap({"federation.rounds": 6}), tmp_path / "longer")
    run(recorded(folder, [("rounds", "6")]), folder, resume=True)
    assert_same(folder, longer.folder)
    assert [line["mta"] is None for line in lines_of(folder)] == [True, True, False] * 2


@pytest.mark.parametrize("name", ["crfl", "backdoor_indicator", "snowball"])
def test_more_rounds_are_refused_where_the_defense_depends_on_their_number(cheap, tmp_path, name):
    kept = {"crfl": "final_round", "snowball": "top_down_from"}
    small = {"num_indicator": 20, "epochs": 1} if name == "backdoor_indicator" else {}
    config = cheap({"server.defense": {"type": name, "defense_args": small}})
    with pytest.raises(KeyboardInterrupt):
        run(config, tmp_path / "ends", on_round=stop_after(1))
    with pytest.raises(ConfigError, match=f"rounds = 9: what {name} does depends on the number"):
        recorded(tmp_path / "ends", [("rounds", "9")])
    if name in kept:
        fixed = cheap({"server.defense": {"type": name, "defense_args": {kept[name]: 6}}})
        with pytest.raises(KeyboardInterrupt):
            run(fixed, tmp_path / "fixed", on_round=stop_after(1))
        assert recorded(tmp_path / "fixed", [("rounds", "9")]).federation.rounds == 9


def test_a_finished_run_with_more_rounds_to_do_is_not_finished(cheap, tmp_path, monkeypatch):
    run(cheap({"federation.rounds": 3}), tmp_path)
    (tmp_path / "error.txt").write_text("of an earlier attempt")

    def killed(*_):
        seen = json.loads((tmp_path / "summary.json").read_text())
        raise SystemExit(seen["state"])

    monkeypatch.setattr(loop, "play_round", killed)
    with pytest.raises(SystemExit, match="running"):
        run(recorded(tmp_path, [("rounds", "5")]), tmp_path, resume=True)
    assert json.loads((tmp_path / "summary.json").read_text())["state"] == "interrupted"
    assert not (tmp_path / "error.txt").exists()


def test_a_trigger_s_picture_that_has_changed_is_another_experiment(cheap, tmp_path):
    picture, folder = tmp_path / "trigger.png", tmp_path / "run"

    def draw(value):
        pixels = np.zeros((28, 28), dtype=np.uint8)
        pixels[:3, :3] = value
        Image.fromarray(pixels).save(picture)

    draw(255)
    config = cheap({"client.attack.trigger_pattern": str(picture)})
    before = resolve.identity(config)
    with pytest.raises(KeyboardInterrupt):
        run(config, folder, on_round=stop_after(2))
    draw(100)
    assert resolve.identity(config) != before
    with pytest.raises(ConfigError, match=r"what client.attack.trigger_pattern names has changed"):
        run(recorded(folder), folder, resume=True)
    draw(255)
    assert resolve.identity(config) == before
    run(recorded(folder), folder, resume=True)


def test_a_trigger_s_picture_that_has_moved_is_the_same_experiment(cheap, tmp_path):
    def drawn(name, value):
        pixels = np.zeros((28, 28), dtype=np.uint8)
        pixels[:3, :3] = value
        Image.fromarray(pixels).save(tmp_path / name)
        return str(tmp_path / name)

    def of(name):
        return cheap({"client.attack.trigger_pattern": name})

    first, folder = of(drawn("trigger.png", 255)), tmp_path / "run"
    identity = resolve.identity(first)
    whole = run(first, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(first, folder, on_round=stop_after(2))
    (tmp_path / "trigger.png").unlink()
    moved, other = drawn("moved.png", 255), drawn("other.png", 100)
    assert resolve.identity(of(moved)) == identity != resolve.identity(of(other))
    with pytest.raises(ConfigError, match=r"what client.attack.trigger_pattern names has changed"):
        run(recorded(folder, [("trigger_pattern", other)]), folder, resume=True)
    again = run(recorded(folder, [("trigger_pattern", moved)]), folder, resume=True)
    assert torch.equal(again.state.weights, whole.state.weights)
    with pytest.raises(ConfigError, match=r"the run in .* was begun with"):
        recorded(folder, [("trigger_pattern", "4pixel")])
    with pytest.raises(KeyboardInterrupt):
        run(of("4pixel"), tmp_path / "pattern", on_round=stop_after(1))
    with pytest.raises(ConfigError, match=r"the run in .* was begun with"):
        recorded(tmp_path / "pattern", [("trigger_pattern", moved)])


def test_a_state_that_no_checkpoint_can_hold_is_a_sentence_in_the_first_round(
    cheap, tmp_path, monkeypatch
):
    undefended = DEFENSES["undefended"]
    monkeypatch.setattr(undefended, "state_dict", lambda self: {"seen": np.int64(3)})
    said = "Undefended.state_dict: /seen: a checkpoint cannot hold int64; allowed are"
    with pytest.raises(ConfigError, match=said):
        run(cheap({"settings.checkpoint_every": 5}), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["state"] == "interrupted"
    assert len(lines_of(tmp_path)) == 1


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("DPR", "0.5", "client.attack.DPR = 0.5: the run in {} was begun with 1.0 and goes on"),
        ("seed", "2", "settings.seed = 2: the run in {} was begun with 1 and goes on with it;"),
        ("num_threads", "2", "settings.num_threads = 2: the run in {} was begun with 1 and"),
        ("eval_every", "1", "settings.eval_every = 1: "),
        ("engine", "vectorized", 'settings.engine = "vectorized": the run in {} was begun with '),
        ("name", "mine", 'name = "mine": '),
        ("client.attack", "null", "client.attack = null: "),
        ("server.defense.type", "median", 'server.defense.type = "median": '),
        ("rounds", "5", "federation.rounds = 5: the run in {} was begun with 6; one that goes on"),
        ("rounds", "0", "federation.rounds = 0: allowed is a whole number at least 1."),
        ("sed", "1", "--sed is unknown. Did you mean seed?"),
    ],
)
def test_anything_else_is_refused_in_one_sentence_and_nothing_is_touched(
    left, capsys, name, text, sentence
):
    before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
    assert main(["run", "--resume", str(left), f"--{name}", text]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"drop: {sentence.format(left)}")
    assert len(shown.err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in left.rglob("*") if path.is_file()} == before


def test_how_many_clients_are_stacked_is_a_part_of_an_experiment_that_stacks_them(cheap, tmp_path):
    """Regression: it changes last bits, and was neither in the identity nor kept on resuming."""
    names = [
        (
            engine,
            resolve.identity(cheap({"settings.engine": engine, "settings.num_parallel_max": n})),
        )
        for engine in ("vectorized", "inline")
        for n in (16, 2)
    ]
    assert len(set(names)) == 3
    stacked = {"settings.engine": "vectorized", "federation.rounds": 1}
    run(cheap(stacked), tmp_path)
    more = {**stacked, "federation.rounds": 2, "settings.num_parallel_max": 2}
    with pytest.raises(ConfigError, match=r"^settings\.num_parallel_max = 2: the run in .* 16"):
        run(cheap(more), tmp_path, resume=True)


def test_in_python_the_config_is_held_to_the_recorded_one_too(cheap, left):
    with pytest.raises(ConfigError, match=r"^client.lr = 0.5: .* was begun with 0.05 and"):
        run(cheap({"client.lr": 0.5}), left, resume=True)
    with pytest.raises(ConfigError, match=r"needs the folder"):
        run(cheap(), resume=True)
    # The number of threads that the machine chose is that of the record, on another machine, too.
    run(cheap({"settings.num_threads": 0}), left, resume=True)
    assert recorded(left).settings.num_threads == 1


def test_a_config_that_was_edited_behind_the_runs_back_is_noticed(left):
    path = left / "config.json"
    path.write_text(path.read_text().replace('"lr": 0.05', '"lr": 0.5'))
    with pytest.raises(ConfigError, match=r"client.lr = 0.5, but the run was begun with 0.05"):
        run(recorded(left), left, resume=True)


def test_other_data_is_refused(left, monkeypatch):
    def changed(config):
        world = assemble(config)
        world.split.test.x[5, 0, 3, 3] ^= 1  # one grey level of one pixel
        return world

    monkeypatch.setattr(loop, "assemble", changed)
    before = (left / "rounds.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"the data is not what the run was begun with"):
        run(recorded(left), left, resume=True)
    assert (left / "rounds.jsonl").read_bytes() == before


@pytest.mark.parametrize("kind", ["defense", "attack", "poison"])
def test_another_revision_of_a_method_is_refused(left, whole, monkeypatch, kind):
    config = recorded(left)
    method = {
        "defense": DEFENSES[config.server.defense.type],
        "attack": ATTACKS[config.client.attack.type],
        "poison": POISONS[config.client.attack.poison],
    }[kind]
    before = resolve.identity(recorded(left))
    monkeypatch.setattr(method, "revision", 2)
    assert resolve.identity(recorded(left)) != before
    lines = (left / "rounds.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=r"begun with revision 1 of \w+, and this version has"):
        run(recorded(left), left, resume=True)
    assert (left / "rounds.jsonl").read_bytes() == lines
    monkeypatch.undo()
    run(recorded(left), left, resume=True)
    assert_same(left, whole().folder)


def test_other_code_is_said_and_the_run_goes_on(left, whole, monkeypatch, caplog):
    monkeypatch.setattr(resume, "__version__", "9.9")
    with caplog.at_level(logging.WARNING, "entity"):
        run(recorded(left), left, resume=True)
    assert "drop-fl is 9.9, and was " in caplog.text
    assert without_times(lines_of(left)) == without_times(whole().rounds)


def test_a_field_that_a_later_version_brought_is_no_difference(left, whole, monkeypatch):
    read = checkpoint._read

    def older(place):
        found = read(place)
        del found.origin["config"]["settings"]["checkpoint_every"]
        del found.origin["config"]["server"]["bn_policy"]
        return found

    monkeypatch.setattr(checkpoint, "_read", older)
    run(recorded(left), left, resume=True)
    assert_same(left, whole().folder)


# --- finished runs, and folders that hold none


def test_a_finished_run_says_so_and_is_left_alone(whole, tmp_path, capsys, caplog, monkeypatch):
    folder = Path(shutil.copytree(whole().folder, tmp_path / "run"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setattr(loop, "assemble", None)  # not even the data is read
    with caplog.at_level(logging.INFO, "entity"):
        assert main(["run", "--resume", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((folder / "summary.json").read_text())
    assert "is finished: it has all of its 6 rounds" in caplog.text
    result = run(recorded(folder), folder, resume=True)
    assert torch.equal(result.state.weights, whole().state.weights)
    assert without_times(result.rounds) == without_times(whole().rounds)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_finished_run_whose_checkpoints_were_deleted_is_finished_nevertheless(whole, tmp_path):
    folder = Path(shutil.copytree(whole().folder, tmp_path / "run"))
    shutil.rmtree(folder / "checkpoint")
    before = (folder / "rounds.jsonl").read_bytes()
    assert run(recorded(folder), folder, resume=True).state is None
    assert main(["run", "--resume", str(folder)]) == 0
    assert (folder / "rounds.jsonl").read_bytes() == before


def test_a_finished_run_leaves_its_model_by_the_names_of_a_state_dict(whole):
    _, roster = recruit(whole().config, Seeds(1))
    model = roster.new_model()
    model.load_state_dict(load_file(whole().folder / "model.safetensors"))
    assert torch.equal(roster.spec.flatten(model).weights, whole().state.weights)


@pytest.mark.parametrize("what", ["missing", "empty", "a file", "other things"])
def test_a_folder_that_holds_no_run_is_exit_code_2_and_stays_as_it_was(tmp_path, capsys, what):
    folder = tmp_path / "run"
    if what == "a file":
        folder.write_text("x")
    elif what != "missing":
        folder.mkdir()
    if what == "other things":
        (folder / "notes.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    assert main(["run", "--resume", str(folder)]) == 2
    assert capsys.readouterr().err == (
        f"drop: --resume {folder}: holds no run, as it has no config.json.\n"
    )
    assert sorted(tmp_path.rglob("*")) == before


def test_a_config_that_is_none_is_exit_code_2(left, capsys):
    (left / "config.json").write_text("{")
    assert main(["run", "--resume", str(left)]) == 2
    assert "config.json: is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--out", "x"], ["--overwrite"]])
def test_a_run_goes_on_in_its_own_folder(left, capsys, words):
    assert main(["run", "--resume", str(left), *words]) == 2
    assert "takes neither --out nor --overwrite" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["run", "--resume", str(left), "--config", str(left / "config.json")])


def test_a_new_run_in_place_of_an_old_one_takes_nothing_over(cheap, whole, left):
    changes = {"settings.seed": 2, "federation.rounds": 1, "settings.checkpoint_every": 0}
    with pytest.raises(RunExists, match=r": already holds a run; .* or resume or overwrite"):
        run(cheap(changes), left)
    run(cheap(changes), left, overwrite=True)
    names = {path.name for path in left.rglob("*")}
    assert names == {
        *("config.json", "rounds.jsonl", "summary.json", "model.safetensors", ".lock"),
        *("checkpoint", "round_0001.json", "round_0001.safetensors"),
        *("artifacts", "example.safetensors"),
    }


# --- two processes


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
file.write("4711")
file.flush()
print("locked", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["resume", "overwrite"])
def test_a_second_process_on_a_run_is_refused_until_the_first_is_gone(cheap, left, whole, how):
    (left / ".lock").unlink()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(left / ".lock")], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout.readline() == "locked\n"
        before = {path: path.read_bytes() for path in left.rglob("*") if path.is_file()}
        with pytest.raises(ConfigError, match=r"process 4711 is at work on this run"):
            run(cheap(), left, **{how: True})
        assert {path: path.read_bytes() for path in left.rglob("*") if path.is_file()} == before
    finally:
        holder.kill()
        holder.communicate()
    run(cheap(), left, **{how: True})
    assert_same(left, whole().folder)


# --- signals


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_sigterm_is_as_ctrl_c_with_exit_code_143_and_the_run_goes_on(tmp_path, tables):
    rounds = 60
    changes = {"client.ADR": 0.02, "federation.rounds": rounds, "settings.eval_every": 30}
    changes |= {"settings.checkpoint_every": 0}
    changes |= {"settings.engine": "pool", "settings.workers": 2}
    path, folder = tmp_path / "long.json", tmp_path / "run"
    path.write_text(json.dumps(tables({**CHEAP, **changes})))
    command = [sys.executable, "-m", "entity.cli", "run", "--config", str(path)]
    process = subprocess.Popen(
        [*command, "--out", str(folder)], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_until(lambda: finished_rounds(folder) >= 2, 90)
        os.killpg(process.pid, signal.SIGTERM)  # a scheduler sends it to all of them
        _, shown = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert process.returncode == 143
    assert "Traceback" not in shown
    assert shown.endswith("drop: stopped; the finished rounds are kept.\n")
    assert f"To go on: drop run --resume {folder}\n" in shown
    wait_until(lambda: not members_of(process.pid), 10)
    done = finished_rounds(folder)
    (kept,) = folder.glob("checkpoint/*.json")
    assert done - 1 <= int(kept.stem[6:]) <= done < rounds
    assert main(["run", "--resume", str(folder), "--engine", "inline", "--quiet"]) == 0
    expected = run(resolve.experiment(tables({**CHEAP, **changes, "settings.engine": "inline"})))
    assert without_times(lines_of(folder)) == without_times(expected.rounds)


def members_of(session):
    """Processes of a session that still live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            _, _, rest = entry.read_text().rpartition(")")
        except OSError:
            continue
        state, _, _, of_session = rest.split()[:4]
        if int(of_session) == session and state != "Z":
            found.append(int(entry.parent.name))
    return found


def test_sigterm_is_handled_during_a_command_only(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def look(options):
        during.append(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0

    monkeypatch.setattr("entity.cli.list._list", look)
    assert main(["list"]) == 143
    assert during[0] is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_checkpoint_with_the_earlier_names_of_the_counters_is_resumed(left, whole):
    """As the code before wrote it, checksum and all."""
    path = left / "checkpoint" / "round_0004.json"
    content = json.loads(path.read_bytes())["content"]
    ((table, counters),) = [
        (entry, entry[1]["table"])
        for entry in content["snapshot"]["table"]
        if entry[0] == "detection"
    ]
    earlier = {
        "true_positives": "caught",
        "false_negatives": "missed",
        "false_positives": "wronged",
        "true_negatives": "cleared",
    }
    assert [name for name, _ in counters] == list(earlier)
    assert sum(count for _, count in counters) == 4 * 4  # four rounds of four clients
    table[1]["table"] = [[earlier[name], count] for name, count in counters]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps({"sha256": digest, "content": content}))
    told = []
    run(recorded(left), left, on_round=told.append, resume=True)
    assert told[0]["round"] == 5
    assert_same(left, whole().folder)


def test_the_counters_of_a_detection_are_all_kept():
    assert set(journal.asdict(Detection(1, 2, 3, 4)).values()) == {1, 2, 3, 4}
