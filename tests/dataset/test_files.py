"""How the files of a data set become its cache."""

import os
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


@pytest.mark.parametrize("kept", [False, True])
def test_a_download_that_fails_leaves_no_empty_folder_behind(tmp_path, kept):
    """A folder that was there before stays, and so does what the download has brought."""
    root = tmp_path / "new" / "data"

    def download(root):
        (root / "MNIST" / "raw").mkdir(parents=True)
        if kept:
            (root / "MNIST" / "half").write_bytes(b"x")
        raise OSError("no network")

    with pytest.raises(ConfigError, match="no network"):
        replace(FILES, download=download).read(root)
    assert tmp_path.is_dir()
    assert (root / "MNIST").exists() is kept
    assert not (root / "MNIST" / "raw").exists()
