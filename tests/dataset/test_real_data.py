"""The readers on real data, where it lies beside the repository."""

import gzip
import hashlib
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from entity.dataset import DATASETS, find
from entity.seeding import Seeds

DATA = Path(__file__).parents[3] / "shared" / "data"
RAW = DATA / "mnist" / "MNIST" / "raw"
ARCHIVE = DATA / "cifar10-folder.tar.gz"
SEEDS = Seeds(71)


@pytest.mark.skipif(not RAW.is_dir(), reason="no real MNIST here")
def test_mnist_50k_10k_holds_the_bytes_of_its_files(tmp_path):
    (tmp_path / "MNIST").mkdir()
    (tmp_path / "MNIST" / "raw").symlink_to(RAW)
    parts = DATASETS["mnist"].read(tmp_path, SEEDS)
    for part, name, n in zip(parts, ("train", "t10k"), (50_000, 10_000), strict=True):
        assert tuple(part.x.shape) == (n, 1, 28, 28)
        pixels = gzip.decompress((RAW / f"{name}-images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((RAW / f"{name}-labels-idx1-ubyte.gz").read_bytes())[8:]
        assert part.known_sha256() == hashlib.sha256(pixels).hexdigest()
        assert part.y.numpy().astype(np.uint8).tobytes() == labels
        assert torch.bincount(part.y).tolist() == np.bincount(list(labels)).tolist()
    # The 60,000 training digits of the original, which these are.
    total = torch.bincount(torch.cat([part.y for part in parts])).tolist()
    assert total == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.skipif(not ARCHIVE.is_file(), reason="no real photographs here")
def test_jpeg_files_have_the_pixels_that_another_decoder_finds(tmp_path):
    other_decoder = pytest.importorskip("torchvision.io")
    folders = [tmp_path / "own" / part / name for part in ("train", "test") for name in "ab"]
    for folder in folders:
        folder.mkdir(parents=True)
    with tarfile.open(ARCHIVE, "r|gz") as archive:
        for i, member in enumerate(archive):
            if i == 300:
                break
            if member.isfile():
                data = archive.extractfile(member).read()
                (folders[i % 4] / Path(member.name).name).write_bytes(data)
    source = find("imagefolder:own", tmp_path)
    assert (source.channels, source.size) == (3, 32)
    train, test = source.read(tmp_path, SEEDS)
    files = sorted((tmp_path / "own" / "train").glob("*/*.jpg"))
    assert len(train) == len(files) > 100
    assert len(train) + len(test) == 297
    for x, y, file in zip(train.x, train.y, files, strict=True):
        other = other_decoder.read_image(str(file), other_decoder.ImageReadMode.RGB)
        assert (x.int() - other.int()).abs().max() <= 2
        assert file.parent.name == "ab"[int(y)]
