"""The original's classes take any folder that itself holds a data set's files."""

import os
import pickle

import numpy as np
import pytest
import torchvision.datasets.cifar

from entity.config.schema import ConfigError
from entity.dataset.cinic10 import CINIC10
from entity.dataset.emnist import NAMES as EMNIST_NAMES
from entity.dataset.gtsrb import TEST, TRAIN, TRUTH
from entity.dataset.mnist import NAMES as MNIST_NAMES
from entity.original import (
    BackdoorableCIFAR10,
    BackdoorableCINIC10,
    BackdoorableEMNIST,
    BackdoorableFashionMNIST,
    BackdoorableGTSRB,
)


def _cifar10(folder, write_tree, write_idx):
    folder.mkdir()
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        batch = {"data": np.zeros((2, 3072), np.uint8), "labels": [0, 1]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))


def _cinic10(folder, write_tree, write_idx):
    write_tree(folder, ("train", "valid", "test"), CINIC10.class_names, n=1)


def _gtsrb(folder, write_tree, write_idx):
    write_tree(folder / TRAIN, (".",), ("00000", "00001"), n=2, suffix="ppm")
    write_tree(folder / TEST, (".",), (".",), n=3, suffix="ppm")
    lines = [f"{i}.ppm;{i}" for i in range(3)]
    (folder / TRUTH).write_text("\n".join(["Filename;ClassId", *lines]))


def _emnist(folder, write_tree, write_idx):
    write_idx(folder / "raw", EMNIST_NAMES, classes=47)


def _fashion(folder, write_tree, write_idx):
    write_idx(folder / "raw", MNIST_NAMES)


KINDS = {
    "cifar-10-batches-py": (BackdoorableCIFAR10, _cifar10, 10),
    "cinic-10": (BackdoorableCINIC10, _cinic10, 20),
    "gtsrb": (BackdoorableGTSRB, _gtsrb, 4),
    "EMNIST": (BackdoorableEMNIST, _emnist, 40),
    "FashionMNIST": (BackdoorableFashionMNIST, _fashion, 40),
}


@pytest.fixture(params=KINDS)
def kind(request, tmp_path, write_tree, write_idx, monkeypatch):
    """A data set's class, its files under their own name, and how many images it trains on."""
    cls, write, count = KINDS[request.param]
    cifar = torchvision.datasets.cifar
    monkeypatch.setattr(cifar, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    write(tmp_path / request.param, write_tree, write_idx)
    return cls, tmp_path / request.param, count


def test_the_root_may_be_the_data_folder_or_its_own(kind):
    cls, folder, count = kind
    for root in (folder.parent, folder, str(folder)):
        assert len(cls(root=root, split="train")) == count


def test_the_root_may_be_called_anything(kind, monkeypatch):
    cls, folder, count = kind
    renamed = folder.rename(folder.with_name("my images"))
    assert len(cls(root=renamed, split="train")) == count
    monkeypatch.chdir(renamed)
    assert len(cls(root=".", split="train")) == count
    if (renamed / "raw").exists():
        assert len(cls(root=renamed / "raw", split="train")) == count


def test_a_folder_that_holds_nothing_is_refused_as_before(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ConfigError, match="CINIC-10 is not in"):
        BackdoorableCINIC10(root=tmp_path)
