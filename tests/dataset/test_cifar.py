"""CIFAR-10 and CIFAR-100, which come as pickles."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets.cifar

from entity.config.schema import ConfigError
from entity.dataset import DATASETS, load
from entity.dataset.cifar100 import CLASSES
from entity.seeding import Seeds

SEEDS = Seeds(71)
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]


@pytest.fixture
def any_checksum(monkeypatch):
    """Files made here have not the checksums of the published ones."""
    cifar = torchvision.datasets.cifar
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))


def tiny_cifar10(root: Path) -> tuple[np.ndarray, list[int]]:
    """Two images a batch; the first 1,024 bytes of a row are red, then green, then blue."""
    rng = np.random.default_rng(0)
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    data = rng.integers(256, size=(12, 3072), dtype=np.uint8)
    labels = [int(label) for label in rng.integers(10, size=12)]
    for i, name in enumerate(BATCHES):
        batch = {"data": data[2 * i : 2 * i + 2], "labels": labels[2 * i : 2 * i + 2]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    return data, labels


def tiny_cifar100(root: Path) -> dict[str, dict[str, object]]:
    rng = np.random.default_rng(0)
    folder = root / "cifar-100-python"
    folder.mkdir()
    batches = {}
    for name, n in (("train", 7), ("test", 3)):
        batches[name] = {
            "data": rng.integers(256, size=(n, 3072), dtype=np.uint8),
            "fine_labels": [int(label) for label in rng.integers(100, size=n)],
            "coarse_labels": [0] * n,
        }
        (folder / name).write_bytes(pickle.dumps(batches[name]))
    names = {"fine_label_names": list(CLASSES), "coarse_label_names": ["x"] * 20}
    (folder / "meta").write_bytes(pickle.dumps(names))
    return batches


@pytest.mark.usefixtures("any_checksum")
def test_cifar10_reads_the_planes_of_its_batches_in_order(tmp_path):
    data, labels = tiny_cifar10(tmp_path)
    train, test = DATASETS["cifar10"].read(tmp_path, SEEDS)
    assert np.array_equal(train.x, data[:10].reshape(10, 3, 32, 32))
    assert np.array_equal(test.x, data[10:].reshape(2, 3, 32, 32))
    assert train.y.tolist() + test.y.tolist() == labels
    assert train.x.is_contiguous()


@pytest.mark.usefixtures("any_checksum")
def test_cifar100_has_the_fine_labels(tmp_path):
    batches = tiny_cifar100(tmp_path)
    for part, name in zip(DATASETS["cifar100"].read(tmp_path, SEEDS), batches, strict=True):
        assert np.array_equal(part.x, batches[name]["data"].reshape(-1, 3, 32, 32))
        assert part.y.tolist() == batches[name]["fine_labels"]


def test_the_fine_classes_are_in_alphabetical_order():
    assert len(CLASSES) == 100
    assert list(CLASSES) == sorted(CLASSES)


@pytest.mark.parametrize(("name", "make"), [("cifar10", tiny_cifar10), ("cifar100", tiny_cifar100)])
def test_a_pickle_with_another_checksum_is_named_and_never_opened(
    monkeypatch, tmp_path, name, make
):
    make(tmp_path)
    monkeypatch.setattr(pickle, "load", lambda *args, **kwargs: pytest.fail("unpickled"))
    first = "data_batch_1" if name == "cifar10" else "train"
    with pytest.raises(ConfigError, match=rf"/{first} is damaged, its checksum is not .* remove"):
        load(DATASETS[name], tmp_path, SEEDS)


@pytest.mark.parametrize("missing", ["data_batch_3", "batches.meta"])
def test_a_batch_that_is_missing_is_downloaded(monkeypatch, tmp_path, missing):
    tiny_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / missing).unlink()
    asked = []

    def fail(self: object) -> None:
        asked.append(self)
        raise OSError("no network")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", fail)
    with pytest.raises(ConfigError, match="CIFAR-10 is not in"):
        load(DATASETS["cifar10"], tmp_path, SEEDS)
    assert len(asked) == 1
