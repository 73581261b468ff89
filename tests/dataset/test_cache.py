"""Decoded once, mapped ever after; and decoded again where that is not so."""

import json
import multiprocessing
import os
import pickle
import shutil
import time
from functools import partial
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing  # teaches ForkingPickler tensors

from entity.dataset import cache
from entity.dataset.cache import caches, fingerprint
from entity.dataset.cache_folder import Mapped
from entity.dataset.decoded import Decoded
from entity.dataset.images import Images

SHAPES = ((2500, 3, 4, 4), (7, 3, 4, 4))
MARK = fingerprint("1", [("a", 1, 2)])


def arrays(seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(256, size=shape, dtype=np.uint8), np.arange(shape[0]) % 5) for shape in SHAPES
    ]


class Decoder:
    """Decodes those arrays and counts how often."""

    def __init__(self, seed: int = 0) -> None:
        self.seed, self.times = seed, 0

    def __call__(self) -> list[Decoded]:
        self.times += 1
        return [Decoded.of(x, y) for x, y in arrays(self.seed)]


def same(parts, seed: int = 0) -> bool:
    return all(
        np.array_equal(part.x, x) and np.array_equal(part.y, y)
        for part, (x, y) in zip(parts, arrays(seed), strict=True)
    )


def only_cache(root: Path) -> Path:
    (folder,) = (root / ".drop-cache").iterdir()
    return folder


def test_images_are_decoded_once(tmp_path):
    decode = Decoder()
    for _ in range(3):
        parts = cache.read(tmp_path, "set", MARK, decode)
        assert same(parts)
        assert all(isinstance(part, Mapped) for part in parts)
    assert decode.times == 1


def test_a_changed_source_is_decoded_again_and_its_old_cache_goes_once_nobody_uses_it(tmp_path):
    """Regression: it went at once, and with it the files that a run's workers were to map."""
    cache.read(tmp_path, "set", MARK, Decoder())
    for other in ("set-2", "other"):
        cache.read(tmp_path, other, MARK, Decoder())
    changed, latest = (fingerprint("1", [("a", 1, n)]) for n in (3, 4))
    folder = tmp_path / ".drop-cache"
    assert same(cache.read(tmp_path, "set", changed, Decoder(1)), 1)
    used = {f"set-2-{MARK}", f"other-{MARK}"}
    assert {path.name for path in folder.iterdir()} == used | {f"set-{MARK}", f"set-{changed}"}
    for mark in (MARK, changed):
        os.utime(folder / f"set-{mark}", (0, 0))
    assert same(cache.read(tmp_path, "set", changed, Decoder(2)), 1)  # is in use again
    assert same(cache.read(tmp_path, "set", latest, Decoder(1)), 1)
    assert {path.name for path in folder.iterdir()} == used | {f"set-{changed}", f"set-{latest}"}


def test_everything_about_a_source_is_in_its_fingerprint():
    base = ("1", [("a", 1, 2), ("b", 1, 2)])
    others = [
        ("2", base[1]),
        ("1", [("a", 1, 2)]),
        ("1", [("a", 1, 2), ("c", 1, 2)]),
        ("1", [("a", 1, 2), ("b", 2, 2)]),
        ("1", [("a", 1, 2), ("b", 1, 3)]),
    ]
    assert len({fingerprint(*source) for source in [base, *others]}) == 6
    assert fingerprint(*base) == fingerprint(*base)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def spoil_labels(folder: Path) -> None:
    y = np.load(folder / "test-y.npy")
    y[0] = y[0] + 1
    np.save(folder / "test-y.npy", y)


def change_header(folder: Path, **changes: object) -> None:
    header = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps(header | changes))


DAMAGE = {
    "pixels cut": lambda f: cut(f / "train-x.npy"),
    "pixels gone": lambda f: (f / "test-x.npy").unlink(),
    "pixels empty": lambda f: (f / "test-x.npy").write_bytes(b""),
    "labels cut": lambda f: cut(f / "train-y.npy"),
    "labels wrong": spoil_labels,
    "labels of another type": lambda f: np.save(f / "test-y.npy", np.arange(7, dtype=np.int32) % 5),
    "header gone": lambda f: (f / "header.json").unlink(),
    "header cut": lambda f: cut(f / "header.json"),
    "header of nothing": lambda f: (f / "header.json").write_text("[]"),
    "another format": lambda f: change_header(f, format=99),
    "another fingerprint": lambda f: change_header(f, fingerprint="0" * 16),
    "all gone": lambda f: [path.unlink() for path in f.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_noticed_and_made_anew(tmp_path, damage):
    cache.read(tmp_path, "set", MARK, Decoder())
    DAMAGE[damage](only_cache(tmp_path))
    decode = Decoder()
    assert same(cache.read(tmp_path, "set", MARK, decode))
    assert decode.times == 1
    assert same(cache.read(tmp_path, "set", MARK, decode))
    assert decode.times == 1
    assert only_cache(tmp_path).name == f"set-{MARK}"


def test_a_source_that_fails_while_it_is_decoded_leaves_nothing(tmp_path):
    def batches():
        yield arrays()[0][0][:1000]
        raise ValueError("damaged")

    broken = Decoded(SHAPES[0], arrays()[0][1], batches)
    with pytest.raises(ValueError, match="damaged"):
        cache.read(tmp_path, "set", MARK, lambda: [broken, broken])
    assert list((tmp_path / ".drop-cache").iterdir()) == []


def test_without_a_place_in_the_data_folder_it_lies_at_home(tmp_path):
    (tmp_path / ".drop-cache").write_text("a file, so no folder")
    decode = Decoder()
    for _ in range(2):
        assert same(cache.read(tmp_path, "set", MARK, decode))
    assert decode.times == 1
    home = Path(os.environ["XDG_CACHE_HOME"])
    (found,) = home.glob("drop/*/*")
    assert found.name == f"set-{MARK}"
    assert [path for path, _ in caches(tmp_path)] == [found]


def test_two_data_folders_do_not_share_a_cache_at_home(tmp_path):
    for seed in (0, 1):
        root = tmp_path / str(seed)
        root.mkdir()
        (root / ".drop-cache").write_text("")
        assert same(cache.read(root, "set", MARK, Decoder(seed)), seed)


def test_a_data_folder_that_is_not_there_is_not_made(tmp_path):
    assert same(cache.read(tmp_path / "data", "set", MARK, Decoder()))
    assert not (tmp_path / "data").exists()


def test_without_any_place_the_images_are_held_in_memory(tmp_path, monkeypatch, caplog):
    (tmp_path / ".drop-cache").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".drop-cache"))
    parts = cache.read(tmp_path, "set", MARK, Decoder())
    assert same(parts)
    assert not isinstance(parts[0], Mapped)
    assert "no place for a cache" in caplog.text


def test_a_full_disk_is_no_place_either(tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert same(cache.read(tmp_path, "set", MARK, Decoder()))
    assert list((tmp_path / ".drop-cache").iterdir()) == []


def test_what_is_written_to_mapped_pixels_does_not_reach_the_file(tmp_path):
    train, _ = cache.read(tmp_path, "set", MARK, Decoder())
    train.x.zero_()
    train.y.fill_(3)
    assert same(cache.read(tmp_path, "set", MARK, Decoder()))


def test_other_processes_are_sent_the_path_and_not_the_pixels(tmp_path):
    train, _ = cache.read(tmp_path, "set", MARK, Decoder())
    assert train.share_memory() is train
    rows = torch.tensor([5, 0, 2])
    for dumps in (pickle.dumps, ForkingPickler.dumps):
        data = bytes(dumps(train))
        assert len(data) < 600
        again = pickle.loads(data)
        assert torch.equal(again.x, train.x)
        assert torch.equal(again.y, train.y)
    selection = train.select(rows).share_memory()
    again = pickle.loads(bytes(ForkingPickler.dumps(selection)))
    assert torch.equal(again.x, train.x[rows])
    assert torch.equal(again.y, train.y[rows])
    assert again.rows.is_shared()


def test_the_noted_hash_is_that_of_the_pixels(tmp_path):
    train, test = cache.read(tmp_path, "set", MARK, Decoder())
    for part in (train, test):
        plain = Images(part.x.clone(), part.y)
        assert part.known_sha256() == part.sha256() == plain.known_sha256()
    assert train.sha256() != test.sha256()


def attend(root: Path, barrier, seed: int) -> None:
    """Look for a cache at the same time as others do, find none, and write one."""

    def decode() -> list[Decoded]:
        parts = Decoder(seed)()
        barrier.wait(20)  # all have found none
        return parts

    os._exit(0 if same(cache.read(root, "set", MARK, decode), seed) else 1)


def test_processes_that_start_at_once_end_with_one_cache(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(3)
    workers = [context.Process(target=attend, args=(tmp_path, barrier, 0)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert same(cache.read(tmp_path, "set", MARK, partial(pytest.fail, "decoded again")))
    assert only_cache(tmp_path).name == f"set-{MARK}"


def test_the_first_cache_that_is_finished_stays(tmp_path):
    def decode() -> list[Decoded]:
        cache.read(tmp_path, "set", MARK, Decoder())  # somebody else, faster
        return Decoder(1)()

    assert same(cache.read(tmp_path, "set", MARK, decode), 0)


def test_what_a_crash_has_left_is_removed_a_day_later(tmp_path):
    place = tmp_path / ".drop-cache"
    for name in (f".set-{MARK}.12-34", f".set-{'0' * 16}.12-35", f".other-{MARK}.12-36"):
        (place / name).mkdir(parents=True)
        long_ago = time.time() - 90_000
        os.utime(place / name, (long_ago, long_ago))
    (place / f".set-{MARK}.12-37").mkdir()
    cache.read(tmp_path, "set", MARK, Decoder())
    left = {path.name for path in place.iterdir()}
    assert left == {f"set-{MARK}", f".other-{MARK}.12-36", f".set-{MARK}.12-37"}


def test_caches_are_listed_with_their_sizes(tmp_path):
    cache.read(tmp_path, "set", MARK, Decoder())
    ((folder, size),) = caches(tmp_path)
    assert folder == only_cache(tmp_path)
    pixels = sum(int(np.prod(shape)) for shape in SHAPES)
    labels = 8 * sum(shape[0] for shape in SHAPES)
    assert pixels + labels < size < pixels + labels + 4096


def test_a_cache_may_be_moved_with_its_data(tmp_path):
    (tmp_path / "here").mkdir()
    cache.read(tmp_path / "here", "set", MARK, Decoder())
    shutil.move(tmp_path / "here", tmp_path / "there")
    decode = partial(pytest.fail, "decoded again")
    assert same(cache.read(tmp_path / "there", "set", MARK, decode))
