"""MNIST, FashionMNIST and EMNIST, which come in the idx format."""

import gzip
import tracemalloc

import numpy as np
import pytest
import torch
import torchvision.datasets

from entity.config.schema import ConfigError
from entity.dataset import DATASETS, load
from entity.dataset.emnist import CLASSES, NAMES
from entity.dataset.idx import read_idx
from entity.dataset.mnist import NAMES as MNIST_NAMES
from entity.seeding import Seeds

SEEDS = Seeds(71)


@pytest.mark.parametrize("pack", [None, gzip.compress])
@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_files_are_read_plain_and_gzipped(tmp_path, write_idx, name, folder, pack):
    arrays = write_idx(tmp_path / folder / "raw", MNIST_NAMES, pack=pack)
    split = load(DATASETS[name], tmp_path, SEEDS, held_out=0)
    for part, kind in ((split.train, "train"), (split.test, "t10k")):
        assert np.array_equal(part.x.squeeze(1), arrays[f"{kind}-images-idx3-ubyte"])
        assert np.array_equal(part.y, arrays[f"{kind}-labels-idx1-ubyte"])


@pytest.mark.parametrize(("name", "cls"), [("mnist", "MNIST"), ("fashionmnist", "FashionMNIST")])
def test_torchvision_reads_the_same_from_the_same_files(tmp_path, write_idx, name, cls):
    write_idx(tmp_path / cls / "raw", MNIST_NAMES)
    train, _ = DATASETS[name].read(tmp_path, SEEDS)
    reference = getattr(torchvision.datasets, cls)(tmp_path, train=True)
    assert torch.equal(train.x.squeeze(1), reference.data)
    assert torch.equal(train.y, reference.targets)


def test_letters_of_emnist_stand_upright(tmp_path, idx):
    letter = np.zeros((28, 28), dtype=np.uint8)  # an L: its foot is at the bottom, to the right
    letter[4:24, 8] = 255
    letter[23, 8:18] = 255
    folder = tmp_path / "EMNIST" / "raw"
    folder.mkdir(parents=True)
    for name in NAMES:
        stored = letter.T[None] if "images" in name else np.array([CLASSES.index("L")])
        (folder / name).write_bytes(idx(stored))
    train, test = DATASETS["emnist"].read(tmp_path, SEEDS)
    for part in (train, test):
        assert np.array_equal(part.x[0, 0], letter)
        assert part.y.tolist() == [21]


def test_emnist_has_the_classes_and_images_of_torchvision(tmp_path, write_idx):
    write_idx(tmp_path / "EMNIST" / "raw", NAMES, sizes=(94, 47), classes=47)
    train, test = DATASETS["emnist"].read(tmp_path, SEEDS)
    for part, is_train in ((train, True), (test, False)):
        reference = torchvision.datasets.EMNIST(tmp_path, split="balanced", train=is_train)
        assert list(CLASSES) == list(reference.classes)
        assert torch.equal(part.x.squeeze(1), reference.data.transpose(1, 2))
        assert torch.equal(part.y, reference.targets)


@pytest.mark.parametrize("content", ["", "0008", "3c68746d6c3e", "short", "0000080200000001"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_damaged_file_is_named(tmp_path, idx, content, suffix):
    path = tmp_path / f"file{suffix}"
    path.write_bytes(idx(np.zeros((4, 4)))[:-1] if content == "short" else bytes.fromhex(content))
    with pytest.raises(ConfigError, match=rf"file{suffix} is damaged"):
        read_idx(path)


def test_a_damaged_archive_is_named_where_its_bytes_are_wrong(tmp_path, write_idx):
    write_idx(tmp_path / "MNIST" / "raw", MNIST_NAMES, pack=gzip.compress)
    path = tmp_path / "MNIST" / "raw" / f"{MNIST_NAMES[2]}.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=rf"{MNIST_NAMES[2]}\.gz is damaged, .* remove it"):
        DATASETS["mnist"].read(tmp_path, SEEDS)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (MNIST_NAMES[0], np.zeros((39, 28, 28)), r"images \(39, 28, 28\) for labels \(40,\)"),
        (MNIST_NAMES[2], np.zeros((10, 784)), r"images \(10, 784\) for labels \(10,\)"),
        (MNIST_NAMES[3], np.full(10, 10), "it holds the label 10"),
    ],
)
def test_files_that_do_not_belong_together_are_refused(
    tmp_path, write_idx, idx, file, content, message
):
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, MNIST_NAMES)
    (folder / file).write_bytes(idx(content))
    with pytest.raises(ConfigError, match=rf"{file} is damaged, .*{message}"):
        DATASETS["mnist"].read(tmp_path, SEEDS)


@pytest.mark.parametrize("name", ["mnist", "fashionmnist", "emnist"])
def test_images_of_another_size_are_refused_and_not_cached(tmp_path, idx, name):
    names = NAMES if name == "emnist" else MNIST_NAMES
    raw = {"mnist": "MNIST", "fashionmnist": "FashionMNIST", "emnist": "EMNIST"}[name]
    folder = tmp_path / raw / "raw"
    folder.mkdir(parents=True)
    for i, file in enumerate(names):
        (folder / file).write_bytes(idx(np.zeros(4) if i % 2 else np.zeros((4, 14, 56))))
    with pytest.raises(ConfigError, match="images of 14x56 instead of 28x28"):
        DATASETS[name].read(tmp_path, SEEDS)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.parametrize("head", ["0000 08 03 ffffffff ffffffff ffffffff", "0000 08 01 ffffffff"])
def test_a_header_that_claims_what_no_memory_holds_is_refused(tmp_path, head):
    (tmp_path / "file").write_bytes(bytes.fromhex(head))
    with pytest.raises(ConfigError, match="file is damaged"):
        read_idx(tmp_path / "file")


def test_of_an_archive_no_more_is_unpacked_than_its_header_says(tmp_path, idx):
    small, path = idx(np.zeros((1, 28, 28))), tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(small)
        for _ in range(64):
            file.write(bytes(1 << 20))
    tracemalloc.start()
    with pytest.raises(ConfigError, match=r"bomb\.gz is damaged"):
        read_idx(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22
