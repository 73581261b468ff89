import os

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.svhn

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.seeding import Seeds

SEEDS = Seeds(71)


def write(folder, n_train=11, n_test=4):
    """The real layout: X is (32, 32, 3, N), y is (N, 1) with 10 for the digit 0."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    parts = []
    for part, n in (("train", n_train), ("test", n_test)):
        x = rng.integers(256, size=(32, 32, 3, n), dtype=np.uint8)
        y = (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]
        scipy.io.savemat(folder / f"{part}_32x32.mat", {"X": x, "y": y})
        parts.append((x, y))
    return parts


@pytest.mark.parametrize("where", ["svhn", "SVHN", "."])
def test_digits_are_read_with_channels_first_and_ten_as_zero(tmp_path, monkeypatch, where):
    svhn = torchvision.datasets.svhn
    monkeypatch.setattr(svhn, "check_integrity", lambda path, md5=None: os.path.isfile(path))
    written = write(tmp_path / where)
    for part, (x, y) in zip(DATASETS["svhn"].read(tmp_path, SEEDS), written, strict=True):
        assert np.array_equal(part.x, np.moveaxis(x, (3, 2, 0, 1), (0, 1, 2, 3)))
        assert part.y.tolist() == [int(label) % 10 for label in y[:, 0]]


def test_a_file_with_another_checksum_is_named(tmp_path):
    write(tmp_path / "svhn")
    with pytest.raises(ConfigError, match=r"train_32x32\.mat is damaged, its checksum is not"):
        DATASETS["svhn"].read(tmp_path, SEEDS)
