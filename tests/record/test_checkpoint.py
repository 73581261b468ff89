"""Checkpoints: what goes in comes out, and whatever happens to a file is noticed."""

import json
import logging
import math
import os
import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, load_file, save

from entity.layout import ModelState
from entity.record import checkpoint
from entity.record.checkpoint import Checkpoints, Snapshot
from entity.record.packing import pack, unpack

ORIGIN = {"config": {"client": {"lr": 0.1}}, "data": "abc"}


def snapshot(round=1, **changes):
    weights = torch.arange(6.0) + round
    whole = Snapshot(
        round,
        ModelState(weights, torch.tensor([float(round), math.nan])),
        weights - 1,
        server={
            "points": [[3, 0.5], ["node", 2.0]],
            "history": {7: torch.ones(2) * round, "7": torch.zeros(0, 3)},
            "due": True,
            "start": None,
            "far": [math.inf, -math.inf, -0.0, 0.1 + 0.2],
        },
        clients={4: {"seen": torch.tensor(round), "mask": torch.tensor([True, False])}},
        trigger={"pattern": torch.full((1, 2, 2), 0.5)},
        colluders={"z": torch.ones(3), "rounds": torch.tensor(2)},
        detection={"true_positives": round, "false_negatives": 0},
    )
    return replace(whole, **changes)


def kept(folder, numbers, every=1):
    """Checkpoints of some rounds, as a run would write them."""
    found = Checkpoints(folder, ORIGIN, every)
    for number in numbers:
        found.take(snapshot(number))
    return found


def reread(folder, most=10_000):
    return Checkpoints(folder, {}, 1).last(most)


def same(one, other):
    """Whether two trees are equal, types and bits included."""
    if isinstance(one, torch.Tensor):
        return (
            isinstance(other, torch.Tensor)
            and (one.dtype, one.shape) == (other.dtype, other.shape)
            and save({"x": one.contiguous()}) == save({"x": other.contiguous()})
        )
    if isinstance(one, dict):
        return (
            isinstance(other, dict)
            and [(type(key), key) for key in one] == [(type(key), key) for key in other]
            and all(same(one[key], other[key]) for key in one)
        )
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and (
            len(one) == len(other) and all(map(same, one, other))
        )
    if isinstance(one, float):
        return isinstance(other, float) and repr(one) == repr(other)
    return type(one) is type(other) and one == other


def same_snapshot(one, other):
    return same(
        {**vars(one), "state": tuple(one.state)}, {**vars(other), "state": tuple(other.state)}
    )


def files(folder):
    return sorted(path.name for path in (folder / "checkpoint").iterdir())


# --- trees

DTYPES = [
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
]


@st.composite
def tensors(draw):
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    whole = (torch.randn(shape, generator=numbers) * 50).to(draw(st.sampled_from(DTYPES)))
    return whole.T if whole.dim() == 2 and draw(st.booleans()) else whole


leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    tensors(),
)
keys = st.one_of(st.integers(-9, 9), st.sampled_from(["7", "tensor", "table", "float", "a/b", "a"]))
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(keys | st.text(), inner, max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(keys, trees, max_size=3))
def test_any_tree_of_what_a_state_may_hold_comes_back_as_it_was(tree):
    packed, parts = pack(tree)
    back = unpack(json.loads(json.dumps(packed, allow_nan=False)), load(save(parts)))
    assert same(tree, back)


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(keys, trees, max_size=3))
def test_any_state_of_a_server_comes_back_from_the_disk(tmp_path_factory, tree):
    folder = tmp_path_factory.mktemp("run")
    Checkpoints(folder, ORIGIN, 1).take(snapshot(server=tree))
    assert same(reread(folder).snapshot.server, tree)


def test_tensors_that_share_memory_come_back_equal_and_apart():
    whole = torch.arange(10.0)
    tree = {"a": whole, "b": whole, "view": whole[2:5], "crossed": whole.view(2, 5).T}
    back = unpack(*pack(tree))
    assert same(tree, back)
    back["a"][3] = -1
    assert whole[3] == back["b"][3] == 3
    assert back["view"][1] == back["crossed"][3, 0] == 3


@pytest.mark.parametrize("odd", [{1, 2}, object(), b"bytes", 1j, {1.5: 2}, {None: 1}])
def test_what_a_checkpoint_cannot_hold_is_named_by_its_place(odd):
    with pytest.raises(TypeError, match=r"^/server/history/1: a checkpoint cannot hold "):
        pack({"server": {"history": [0, odd]}})


# --- on disk


def test_a_snapshot_comes_back_with_every_bit_and_says_whose_it_is(tmp_path):
    kept(tmp_path, [1])
    found = reread(tmp_path)
    assert same_snapshot(found.snapshot, snapshot(1))
    assert found.origin == ORIGIN
    assert all(isinstance(key, int) for key in found.snapshot.clients)


def test_a_folder_whose_name_is_no_utf8_is_read(tmp_path):
    """Regression: its checkpoints counted as damaged, and all rounds were run again."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("no such name on this file system")
    kept(folder, [1])
    assert same_snapshot(reread(folder).snapshot, snapshot(1))


def test_no_previous_weights_and_nothing_remembered(tmp_path):
    bare = Snapshot(1, ModelState(torch.zeros(2), torch.zeros(0)))
    Checkpoints(tmp_path, {}, 1).take(bare)
    assert same_snapshot(reread(tmp_path).snapshot, bare)


def test_two_files_a_checkpoint_tensors_by_name_and_json_and_the_last_two_are_kept(tmp_path):
    kept(tmp_path, range(1, 6))
    assert files(tmp_path) == [
        *("round_0004.json", "round_0004.safetensors"),
        *("round_0005.json", "round_0005.safetensors"),
    ]
    named = load_file(tmp_path / "checkpoint" / "round_0005.safetensors")
    assert {"/state/weights", "/state/buffers", "/previous", "/clients/4/seen"} <= set(named)
    assert named["/clients/4/seen"].dtype == torch.int64
    assert reread(tmp_path).snapshot.round == 5


@pytest.mark.parametrize(("every", "written"), [(1, [8, 9]), (3, [6, 9]), (4, [4, 8]), (0, [])])
def test_they_are_written_every_so_many_rounds(tmp_path, every, written):
    found = kept(tmp_path, range(1, 10), every)
    there = {int(path.stem[6:]) for path in tmp_path.glob("checkpoint/*.json")}
    assert sorted(there) == written
    found.flush()  # the run ends, or is interrupted
    assert reread(tmp_path).snapshot.round == 9


def test_what_is_on_disk_is_not_written_again(tmp_path, monkeypatch):
    kept(tmp_path, [1, 2])
    again = Checkpoints(tmp_path, ORIGIN, 1)
    again.last(10)
    monkeypatch.setattr(checkpoint, "save_file", None)
    again.flush()
    Checkpoints(tmp_path, ORIGIN, 1).flush()  # nothing taken yet
    assert reread(tmp_path).snapshot.round == 2


def test_without_a_folder_nothing_is_kept_or_found():
    found = kept(None, [1, 2])
    found.flush()
    assert found.last(10) is None


def test_one_beyond_the_record_is_passed_over(tmp_path, caplog):
    kept(tmp_path, [1, 2])
    assert reread(tmp_path, most=1).snapshot.round == 1
    assert "round_0002.json passed over: the record ends before" in caplog.text
    assert reread(tmp_path, most=0) is None


def test_round_10000_comes_after_round_9999(tmp_path):
    kept(tmp_path, [9_999, 10_000])
    assert reread(tmp_path).snapshot.round == 10_000


# --- what may happen to them


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def lose(path):
    path.unlink()


def garble(path):
    path.write_bytes(b"\xff\x00{" * 100)


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def grow(path):
    with path.open("ab") as file:
        file.write(b"x")


@pytest.mark.parametrize("harm", [cut, empty, lose, garble, turn_a_bit, grow])
@pytest.mark.parametrize("suffix", [".json", ".safetensors"])
def test_a_damaged_one_is_noticed_and_the_one_before_is_used(tmp_path, caplog, suffix, harm):
    kept(tmp_path, [10, 20])
    harm(tmp_path / "checkpoint" / f"round_0020{suffix}")
    found = Checkpoints(tmp_path, ORIGIN, 10)
    with caplog.at_level(logging.WARNING, "entity"):
        assert same_snapshot(found.last(20).snapshot, snapshot(10))
    if (suffix, harm) != (".json", lose):  # then it is as if it had never been written
        (sentence,) = [record.getMessage() for record in caplog.records]
        assert "round_0020.json passed over: it is damaged (" in sentence
    found.take(snapshot(20))  # the run comes by again
    assert same_snapshot(reread(tmp_path).snapshot, snapshot(20))
    assert len(files(tmp_path)) == 4


def test_a_turned_bit_anywhere_is_noticed(tmp_path):
    kept(tmp_path, [1, 2])
    for path in (tmp_path / "checkpoint").glob("round_0002*"):
        whole = path.read_bytes()
        for place in range(0, len(whole), 11):
            broken = bytearray(whole)
            broken[place] ^= 1 << place % 7
            path.write_bytes(broken)
            assert reread(tmp_path).snapshot.round == 1, (path.suffix, place)
        path.write_bytes(whole)
    assert reread(tmp_path).snapshot.round == 2


def test_tensors_of_another_round_are_noticed(tmp_path):
    kept(tmp_path, [1, 2])
    place = tmp_path / "checkpoint"
    shutil.copy(place / "round_0001.safetensors", place / "round_0002.safetensors")
    assert reread(tmp_path).snapshot.round == 1


def test_one_of_an_unknown_format_is_passed_over(tmp_path, monkeypatch):
    kept(tmp_path, [1])
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    assert reread(tmp_path) is None
    kept(tmp_path, [2])
    assert reread(tmp_path).snapshot.round == 2


def test_when_all_are_damaged_there_is_none(tmp_path):
    kept(tmp_path, [1, 2])
    for path in (tmp_path / "checkpoint").iterdir():
        garble(path)
    found = Checkpoints(tmp_path, ORIGIN, 1)
    assert found.last(5) is None
    found.take(snapshot(1))
    assert files(tmp_path) == ["round_0001.json", "round_0001.safetensors"]


def test_a_damaged_one_never_takes_the_place_of_a_good_one(tmp_path):
    kept(tmp_path, [10, 20])
    cut(tmp_path / "checkpoint" / "round_0020.safetensors")
    found = Checkpoints(tmp_path, ORIGIN, 15)
    found.last(20)
    found.take(snapshot(30))
    assert {name[:10] for name in files(tmp_path)} == {"round_0010", "round_0030"}


def test_whenever_a_process_is_killed_a_whole_one_is_left(tmp_path, monkeypatch):
    """Copies of the folder at every call that changes it stand for kills just before."""
    copies = []

    def watched(change):
        def wrapper(*args, **options):
            if (tmp_path / "checkpoint").exists():
                copies.append(tmp_path.with_name(f"{tmp_path.name}-{len(copies)}"))
                shutil.copytree(tmp_path, copies[-1])
            return change(*args, **options)

        return wrapper

    writing = kept(tmp_path, [1, 2])
    for module, name in [(os, "replace"), (os, "fsync"), (os, "unlink"), (checkpoint, "save_file")]:
        monkeypatch.setattr(module, name, watched(getattr(module, name)))
    writing.take(snapshot(3))
    monkeypatch.undo()
    assert len(copies) >= 8
    rounds = [reread(copy).snapshot.round for copy in copies]
    assert set(rounds) == {2, 3}
    assert rounds == sorted(rounds)
    for copy in copies:
        kept(copy, [3, 4])  # and it goes on, leaving nothing half-written
        assert [name[6:10] for name in files(copy)] == ["0003", "0003", "0004", "0004"]


def test_nothing_is_ever_unpickled(tmp_path, monkeypatch):
    kept(tmp_path, [1])

    def never(*args, **options):
        raise AssertionError("unpickled")

    for module, name in [(pickle, "load"), (pickle, "loads"), (pickle, "Unpickler")]:
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr(torch, "load", never)
    assert reread(tmp_path).snapshot.round == 1
