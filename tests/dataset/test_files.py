"""How the files of a data set become its cache."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.mnist import NAMES
from entity.seeding import Seeds

SEEDS = Seeds(71)
FILES = DATASETS["mnist"].files


@pytest.fixture
def root(tmp_path, write_idx):
    write_idx(tmp_path / "MNIST" / "raw", NAMES)
    return tmp_path


def caches(root):
    return [path.name for path in (root / ".drop-cache").iterdir()]


def test_a_source_that_is_touched_is_decoded_anew(root, idx, write_idx):
    train, _ = FILES.read(root)
    (before,) = caches(root)
    path = root / "MNIST" / "raw" / NAMES[0]
    data = bytearray(path.read_bytes())
    data[16] ^= 0xFF
    path.write_bytes(data)
    os.utime(path, ns=(0, 12345))
    again, _ = FILES.read(root)
    assert caches(root) != [before]
    assert int(again.x[0, 0, 0, 0]) == int(train.x[0, 0, 0, 0]) ^ 0xFF
    assert torch.equal(again.x[1:], train.x[1:])


def test_a_source_that_is_not_touched_is_not_read(root):
    FILES.read(root)
    path = root / "MNIST" / "raw" / NAMES[0]
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    train, _ = FILES.read(root)
    assert len(train) == 40


def test_verifying_reads_the_files_and_renews_a_cache_whose_pixels_are_spoilt(root):
    FILES.read(root)
    (name,) = caches(root)
    path = root / ".drop-cache" / name / "train-x.npy"
    good = path.read_bytes()
    assert FILES.verify(root)[1] is False
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    (train, _), spoilt = FILES.verify(root)
    assert spoilt
    assert path.read_bytes() == good
    assert train.sha256() == train.known_sha256()
    assert caches(root) == [name]


@pytest.mark.parametrize("there", [False, True])
def test_a_download_that_fails_leaves_nothing_behind(tmp_path, there):
    """Regression: the next process took half a file for a damaged one. What was there stays."""
    root = tmp_path / "new" / "data"
    if there:
        (root / "MNIST" / "raw").mkdir(parents=True)

    def download(root):
        (root / "MNIST" / "raw").mkdir(parents=True)
        (root / "MNIST" / "half").write_bytes(b"x")
        raise OSError("no network")

    with pytest.raises(ConfigError, match="no network"):
        replace(FILES, download=download).read(root)
    assert root.exists() == there
    assert [path.name for path in root.glob("**/*")] == ["MNIST", "raw"] * there


def test_of_processes_that_need_one_download_the_first_brings_it_for_all(tmp_path, write_idx):
    """Regression: the second one read what the first was still writing."""
    begun, times = threading.Event(), []

    def download(root):
        times.append(root)
        begun.set()
        time.sleep(0.3)
        write_idx(root / "MNIST" / "raw", NAMES)

    files = replace(FILES, download=download)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(files.read, tmp_path)
        begun.wait()
        others = [pool.submit(files.read, tmp_path) for _ in range(3)]
        sizes = {len(each.result()[0]) for each in (first, *others)}
    assert len(times) == 1
    assert len(sizes) == 1
    assert not list(tmp_path.glob(".drop-download*"))
