from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from entity.attacks.mimic import Mimic, MimicArgs
from entity.client import Broadcast
from entity.client.collusion import Collusion
from entity.experiment import run
from entity.record.directory import Record
from entity.seeding import Seeds


def play(make_round, rounds, malicious, warmup=1, seed=0, ids=None):
    """Return, for each round, what was sent (n, P) and the memory after it."""
    memory, found = {}, []
    for number, deltas in enumerate(rounds, 1):
        updates = make_round(deltas, origin=[0.0] * np.shape(deltas)[1])
        names = updates.client_ids if ids is None else tuple(ids[number - 1])
        updates = replace(updates, round=number, client_ids=names)
        broadcast = Broadcast(number, updates.global_state)
        args = MimicArgs(mimic_warmup=warmup)
        collusion = Collusion(args, Seeds(seed), broadcast, memory, None, None)  # pyright: ignore
        memory = Mimic.conspire(updates, malicious, collusion)
        found.append((updates.weights.double().numpy(), memory))
    return found


def transcription(rounds, start, warmup):
    """Return z, the mean and the copied row after each round, as the authors' code has them."""
    z, mean, chosen, out = start, None, None, []
    for t, good in enumerate(rounds):
        if t < warmup:
            average = good.mean(0)
            mean = average if t == 0 else t / (1 + t) * mean + average / (1 + t)
            total = sum(((g - mean) @ z) * (g - mean) for g in good)
            total = total / np.linalg.norm(total)
            z = total if t == 0 else t / (1 + t) * z + total / (1 + t)
            z = z / np.linalg.norm(z)
            chosen = int(np.argmax(good @ z))
        out.append((z, mean, chosen))
    return out


@pytest.mark.parametrize("warmup", [1, 3, 9])
def test_z_and_the_mean_are_those_of_a_numpy_transcription(make_round, warmup):
    rng = np.random.default_rng(3)
    rounds = [rng.normal(0.3, 1, (7, 30)).astype(np.float32) for _ in range(5)]
    start = torch.randn(30, generator=Seeds(0).generator("mimic"), dtype=torch.float64).numpy()
    good = [deltas[2:].astype(float) for deltas in rounds]
    expected = transcription(good, start, warmup)
    found = play(make_round, rounds, [0, 1], warmup)
    for deltas, (sent, memory), (z, mean, chosen) in zip(rounds, found, expected, strict=True):
        np.testing.assert_allclose(memory["z"].numpy(), z, atol=1e-6)
        np.testing.assert_allclose(memory["mean"].numpy(), mean, atol=1e-6)
        np.testing.assert_array_equal(sent[2:], deltas[2:])
        np.testing.assert_array_equal(sent[0], deltas[2 + chosen])
        np.testing.assert_array_equal(sent[1], deltas[2 + chosen])


def test_who_stands_out_is_copied_with_its_statistics(make_round):
    deltas = np.zeros((6, 4), np.float32)
    deltas[3] = [0, 5, 0, 0]
    deltas[5] = [0, -5.5, 0, 0]
    updates = make_round(deltas)
    updates.buffers[:] = torch.arange(6.0)[:, None]
    Mimic.collude(MimicArgs(), updates, [0, 2], Seeds(0))
    copied = updates.buffers[0, 0].item()
    assert copied in (3, 5)
    assert updates.deltas[0].tolist() == updates.deltas[2].tolist() == deltas[int(copied)].tolist()
    assert updates.buffers[1].tolist() == [1, 1]


def test_after_the_warm_up_the_client_stays(make_round):
    rng = np.random.default_rng(4)
    rounds = [rng.normal(0, 1, (6, 20)).astype(np.float32) for _ in range(6)]
    found = play(make_round, rounds, [5], warmup=2)
    chosen = int(found[1][1]["client"])
    for deltas, (sent, memory) in zip(rounds[2:], found[2:], strict=True):
        assert int(memory["client"]) == chosen
        np.testing.assert_array_equal(sent[5], deltas[chosen])
        assert int(memory["rounds"]) == 2


def test_who_is_not_in_the_round_is_replaced_in_it_by_the_nearest_to_z(make_round):
    rng = np.random.default_rng(5)
    rounds = [rng.normal(0, 1, (4, 20)).astype(np.float32) for _ in range(3)]
    ids = [(1, 2, 3, 9), (4, 5, 6, 9), (1, 2, 3, 9)]
    found = play(make_round, rounds, [3], ids=ids)
    first = int(found[0][1]["client"])
    nearest = int(np.argmax(rounds[1][:3] @ found[0][1]["z"].numpy()))
    np.testing.assert_array_equal(found[1][0][3], rounds[1][nearest])
    np.testing.assert_array_equal(found[2][0][3], rounds[2][ids[2].index(first)])


def test_honest_updates_that_are_alike_teach_nothing(make_round):
    alike = np.tile(np.arange(5, dtype=np.float32), (4, 1))
    different = np.random.default_rng(6).normal(0, 1, (4, 5)).astype(np.float32)
    zero = np.zeros((4, 5), np.float32)
    for first in (alike, zero):
        found = play(make_round, [first, first, different], [0], warmup=3)
        for sent, memory in found:
            assert np.isfinite(sent).all()
            assert memory["z"].norm().item() == pytest.approx(1, abs=1e-5)


def test_one_benign_client_is_copied_and_without_any_nothing_changes(make_round):
    alone = play(make_round, [np.array([[1.0, 2.0], [9.0, 9.0]])], [1])
    assert alone[0][0].tolist() == [[1, 2], [1, 2]]
    nobody = play(make_round, [np.array([[1.0, 2.0], [9.0, 9.0]])], [0, 1])
    assert nobody[0][0].tolist() == [[1, 2], [9, 9]]
    assert nobody[0][1] == {}


def test_updates_that_are_not_finite_are_not_copied(make_round):
    deltas = np.random.default_rng(7).normal(0, 1, (5, 6)).astype(np.float32)
    deltas[1], deltas[3] = np.nan, np.inf
    sent = play(make_round, [deltas], [0])[0][0]
    assert np.isfinite(sent[0]).all()
    assert sent[0].tolist() in (deltas[2].tolist(), deltas[4].tolist())


def test_wide_models_are_done_in_blocks_with_the_same_result(make_round, monkeypatch):
    rounds = [np.random.default_rng(8).normal(0, 1, (5, 23)).astype(np.float32)] * 2
    whole = play(make_round, rounds, [0, 1], warmup=2)
    monkeypatch.setattr("entity.layout.BLOCK", 5)
    again = play(make_round, rounds, [0, 1], warmup=2)
    np.testing.assert_allclose(again[1][1]["z"].numpy(), whole[1][1]["z"].numpy(), atol=1e-6)


def test_a_run_that_goes_on_remembers_whom_it_copied(experiment, tmp_path, monkeypatch):
    fields = {
        "client.attack": {"type": "mimic", "mimic_warmup": 2, "target_class": 7},
        "federation.number_of_malicious_clients": 1,
        "federation.round_size": 3,
        "federation.rounds": 4,
        "client.ADR": 0.03,
    }
    whole = run(experiment(fields))
    assert not torch.equal(
        whole.state.weights, run(experiment(fields | {"client.attack": None})).state.weights
    )
    append = Record.append

    def stop_after_three(self, line, artifacts):
        append(self, line, artifacts)
        if line["round"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Record, "append", stop_after_three)
    folder = Path(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run(experiment(fields), folder)
    monkeypatch.undo()
    resumed = run(experiment(fields), folder, resume=True)
    assert torch.equal(resumed.state.weights, whole.state.weights)
