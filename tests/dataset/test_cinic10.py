import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets.utils
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.cinic10 import FILES
from entity.seeding import Seeds

SEEDS = Seeds(71)
SOURCE = DATASETS["cinic10"]
PARTS = ("train", "valid", "test")


@pytest.mark.parametrize("name", ["cinic-10", "CINIC-10", "cinic10"])
def test_train_and_valid_are_trained_on_pixel_by_pixel(tmp_path, write_tree, name):
    written = write_tree(tmp_path / name, PARTS, SOURCE.class_names)
    train, test = SOURCE.read(tmp_path, SEEDS)
    assert torch.bincount(train.y).tolist() == [4] * 10
    assert torch.bincount(test.y).tolist() == [2] * 10
    paths = sorted(path for path in written if not path.startswith("test/"))
    assert len(paths) == len(train) == 40
    for x, y, path in zip(train.x, train.y, paths, strict=True):
        assert np.array_equal(x.permute(1, 2, 0), written[path])
        assert SOURCE.class_names[int(y)] == path.split("/")[1]


def test_torchvision_numbers_the_same_files_alike(tmp_path, write_tree):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names)
    _, test = SOURCE.read(tmp_path, SEEDS)
    reference = torchvision.datasets.ImageFolder(str(tmp_path / "cinic-10" / "test"))
    assert reference.classes == list(SOURCE.class_names)
    assert test.y.tolist() == reference.targets
    for x, (image, _) in zip(test.x, reference, strict=True):
        assert np.array_equal(x.permute(1, 2, 0), np.asarray(image))


def test_grey_and_palette_files_become_rgb(tmp_path, write_tree):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names)
    grey = np.arange(1024, dtype=np.uint8).reshape(32, 32)
    folder = tmp_path / "cinic-10" / "test" / "airplane"
    Image.fromarray(grey).save(folder / "0.png")
    Image.new("RGB", (32, 32), (1, 2, 3)).quantize(4).save(folder / "1.png")
    _, test = SOURCE.read(tmp_path, SEEDS)
    assert np.array_equal(test.x[0], np.stack([grey] * 3))
    assert test.x[1, :, 5, 5].tolist() == [1, 2, 3]


def test_files_that_are_no_images_are_passed_over(tmp_path, write_tree):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names)
    for name in ("README.md", ".hidden.png", "Thumbs.db"):
        (tmp_path / "cinic-10" / "train" / "frog" / name).write_text("no image")
    (tmp_path / "cinic-10" / "train" / ".DS_Store").mkdir()
    train, _ = SOURCE.read(tmp_path, SEEDS)
    assert len(train) == 40


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_image_is_named_and_nothing_is_left(tmp_path, write_tree, damage):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names)
    path = tmp_path / "cinic-10" / "valid" / "ship" / "1.png"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"x" * 99}[damage])
    with pytest.raises(ConfigError, match=r"valid/ship/1\.png is damaged, .*: unpack CINIC-10"):
        SOURCE.read(tmp_path, SEEDS)
    assert list((tmp_path / ".drop-cache").iterdir()) == []


def test_an_image_of_another_size_is_named(tmp_path, write_tree):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names)
    path = tmp_path / "cinic-10" / "train" / "cat" / "0.png"
    Image.new("RGB", (32, 31)).save(path)
    with pytest.raises(ConfigError, match=r"cat/0\.png has 32x31 pixels instead of 32x32"):
        SOURCE.read(tmp_path, SEEDS)


def test_a_class_that_is_missing_or_does_not_belong_is_named(tmp_path, write_tree):
    write_tree(tmp_path / "cinic-10", PARTS, SOURCE.class_names[:-1])
    with pytest.raises(ConfigError, match="cinic-10 has no image of truck among its 36"):
        SOURCE.read(tmp_path, SEEDS)
    write_tree(tmp_path / "cinic-10", ["train"], ["lorry"])
    with pytest.raises(ConfigError, match="train/lorry is none of the 10 classes"):
        SOURCE.read(tmp_path, SEEDS)


@pytest.mark.parametrize("part", PARTS)
def test_without_one_of_its_parts_it_is_missing(tmp_path, write_tree, part):
    others = [other for other in PARTS if other != part]
    write_tree(tmp_path / "cinic-10", others, SOURCE.class_names, n=1)
    with pytest.raises(ConfigError, match="CINIC-10 is not in"):
        SOURCE.read(tmp_path, SEEDS)


@pytest.mark.parametrize("top", [".", "CINIC-10"])
def test_fetching_unpacks_the_archive_to_where_it_is_looked_for(
    tmp_path, write_tree, monkeypatch, top
):
    write_tree(tmp_path / "made" / top, PARTS, SOURCE.class_names, n=1)
    root = tmp_path / "data"

    def download(url, folder, md5):
        with tarfile.open(Path(folder) / "CINIC-10.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "made", arcname=".")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    found = FILES.obtain(root, FILES.fetch)
    assert found is not None
    assert found[0] == root / "cinic-10"
    assert len(found[1]) == 30
    assert sorted(path.name for path in root.iterdir()) == ["cinic-10"]


def test_an_archive_writes_nothing_beside_its_folder(tmp_path, write_tree, monkeypatch):
    write_tree(tmp_path / "made", PARTS, SOURCE.class_names, n=1)
    (tmp_path / "evil").write_text("evil")
    root = tmp_path / "data"

    def download(url, folder, md5):
        with tarfile.open(Path(folder) / "CINIC-10.tar.gz", "w:gz") as archive:
            archive.add(tmp_path / "made", arcname=".")
            archive.add(tmp_path / "evil", arcname="../../outside")

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download)
    before = vars(tarfile.TarFile)["extraction_filter"]
    with pytest.raises(ConfigError, match=r"could not be downloaded .*outside"):
        FILES.obtain(root, FILES.fetch)
    assert not list(tmp_path.rglob("outside"))
    assert vars(tarfile.TarFile)["extraction_filter"] is before
