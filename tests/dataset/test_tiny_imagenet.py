"""Tiny-ImageNet in the layout of its archive, made up and small."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
import torchvision.datasets.utils
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset import DATASETS, load
from entity.dataset.tiny_imagenet import CLASSES, FILES, WNIDS
from entity.seeding import Seeds

SEEDS = Seeds(71)
SOURCE = DATASETS["tiny_imagenet"]
TESTED = 10


def shade(y: int) -> tuple[int, int, int]:
    """Return a colour of a class that JPEG keeps within a step or two."""
    return (y, 255 - y, 128)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """One flat training image of each class, and some of val in no order of classes."""
    root = tmp_path_factory.mktemp("data")
    base = root / "tiny-imagenet-200"
    for y, wnid in enumerate(WNIDS):
        folder = base / "train" / wnid / "images"
        folder.mkdir(parents=True)
        Image.new("RGB", (64, 64), shade(y)).save(folder / f"{wnid}_0.JPEG")
        (base / "train" / wnid / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t63\t63\n")
    (base / "val" / "images").mkdir(parents=True)
    lines = []
    for i in range(TESTED):
        y = 37 * i % 200
        Image.new("RGB", (64, 64), shade(y)).save(base / "val" / "images" / f"val_{i}.JPEG")
        lines.append(f"val_{i}.JPEG\t{WNIDS[y]}\t0\t32\t44\t62\n")
    (base / "val" / "val_annotations.txt").write_text("".join(reversed(lines)))
    (base / "test" / "images").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(base / "test" / "images" / "test_0.JPEG")
    (base / "wnids.txt").write_text("\n".join(reversed(WNIDS)))
    return root


@pytest.fixture
def root(made, tmp_path) -> Path:
    """A copy whose files may be changed; files that are not are links."""
    base = made / "tiny-imagenet-200"
    for source in base.rglob("*"):
        target = tmp_path / source.relative_to(made)
        if source.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(source)
    return tmp_path


def put(path: Path, data: bytes) -> None:
    """Replace a file, and not what it is linked with."""
    path.unlink()
    path.write_bytes(data)


def test_every_image_has_the_class_of_its_folder_or_of_the_annotations(made):
    train, test = SOURCE.read(made, SEEDS)
    assert train.shape == test.shape == (3, 64, 64)
    assert train.y.tolist() == list(range(200))
    expected = np.array([shade(y) for y in range(200)])
    assert np.abs(train.x.numpy().mean((2, 3)) - expected).max() < 4
    assert sorted(test.y.tolist()) == sorted(37 * i % 200 for i in range(TESTED))
    of_test = np.array([shade(y) for y in test.y.tolist()])
    assert np.abs(test.x.numpy().mean((2, 3)) - of_test).max() < 4


def test_torchvision_numbers_and_decodes_the_training_images_alike(made):
    train, _ = SOURCE.read(made, SEEDS)
    reference = torchvision.datasets.ImageFolder(str(made / "tiny-imagenet-200" / "train"))
    assert reference.classes == list(WNIDS)
    assert train.y.tolist() == reference.targets
    for x, (image, _) in zip(train.x[::20], [reference[i] for i in range(0, 200, 20)], strict=True):
        assert np.array_equal(x.permute(1, 2, 0), np.asarray(image))


def test_classes_are_two_hundred_synsets_in_order_with_a_name_each():
    assert len(WNIDS) == len(CLASSES) == len(set(CLASSES)) == SOURCE.num_classes == 200
    assert list(WNIDS) == sorted(WNIDS)
    assert all(wnid[0] == "n" and len(wnid) == 9 and wnid[1:].isdecimal() for wnid in WNIDS)
    names = dict(zip(WNIDS, CLASSES, strict=True))
    assert names["n01443537"] == "goldfish"
    assert names["n03992509"] == "potter's wheel"
    assert names["n12267677"] == "acorn"
    assert SOURCE.counts == (200 * 500, 200 * 50)


def test_grey_images_become_rgb_and_the_cache_is_mapped(root):
    base = root / "tiny-imagenet-200"
    path = base / "train" / WNIDS[0] / "images" / f"{WNIDS[0]}_0.JPEG"
    path.unlink()
    Image.new("L", (64, 64), 77).save(path)
    train, _ = SOURCE.read(root, SEEDS)
    assert np.abs(train.x[0].numpy().astype(int) - 77).max() <= 1
    again, _ = SOURCE.read(root, SEEDS)
    assert type(again).__name__ == "Mapped"
    assert list((root / ".drop-cache").glob("tiny_imagenet-*"))


@pytest.mark.parametrize(
    ("where", "data", "said"),
    [
        (
            "val/val_annotations.txt",
            b"val_0.JPEG\tn00000000\t0\t0\t1\t1\n",
            "'n00000000', which is",
        ),
        ("val/val_annotations.txt", b"val_0.JPEG\n", "line 1 has '', which is no class"),
        ("val/val_annotations.txt", b"", r"it has no class of val_0\.JPEG"),
        ("val/val_annotations.txt", b"\xff\xfe", "cannot be read as text"),
        (f"train/{WNIDS[3]}/images/{WNIDS[3]}_0.JPEG", b"none", r"_0\.JPEG is damaged"),
    ],
)
def test_a_damaged_file_is_named(root, where, data, said):
    put(root / "tiny-imagenet-200" / where, data)
    with pytest.raises(ConfigError, match=said) as caught:
        SOURCE.read(root, SEEDS)
    assert "unpack tiny-imagenet-200.zip anew" in str(caught.value)


def test_a_missing_and_a_strange_class_are_named(root):
    base = root / "tiny-imagenet-200" / "train"
    (base / WNIDS[5] / "images" / f"{WNIDS[5]}_0.JPEG").rename(root / "aside.JPEG")
    with pytest.raises(ConfigError, match=f"has no image of {WNIDS[5]}"):
        SOURCE.read(root, SEEDS)
    (base / "n99999999" / "images").mkdir(parents=True)
    (root / "aside.JPEG").rename(base / "n99999999" / "images" / "a.JPEG")
    with pytest.raises(ConfigError, match="n99999999 is none of the 200 classes"):
        SOURCE.read(root, SEEDS)


def test_an_image_of_another_size_is_named(root):
    path = root / "tiny-imagenet-200" / "val" / "images" / "val_4.JPEG"
    path.unlink()
    Image.new("RGB", (64, 63)).save(path)
    with pytest.raises(ConfigError, match=r"val_4\.JPEG has 64x63 pixels instead of 64x64"):
        SOURCE.read(root, SEEDS)


def test_what_is_missing_is_not_downloaded_by_a_run_but_told_how_to_get(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(SOURCE, tmp_path, SEEDS)
    for part in ("tiny-imagenet-200", "drop data fetch tiny_imagenet", "cs231n.stanford.edu"):
        assert part in str(caught.value)


def test_the_archive_is_unpacked_beside_and_moved_to_its_place(made, tmp_path, monkeypatch):
    def archive(url, root, md5):
        with zipfile.ZipFile(Path(root, "tiny-imagenet-200.zip"), "w") as file:
            for path in (made / "tiny-imagenet-200").rglob("*"):
                if path.is_file() and path.parts[-2] != "test":
                    file.write(path, path.relative_to(made))

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", archive)
    assert FILES.fetch is not None
    FILES.fetch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-imagenet-200"]
    train, test = SOURCE.read(tmp_path, SEEDS)
    assert (len(train), len(test)) == (200, TESTED)
