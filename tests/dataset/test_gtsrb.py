from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset import DATASETS
from entity.dataset.gtsrb import CLASSES, MOVED, OF
from entity.seeding import Seeds

SEEDS = Seeds(71)
HEADER = "Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"


def write(root: Path, tested=15) -> tuple[dict[int, list[np.ndarray]], list[np.ndarray]]:
    """Two training images of each class and some test images, all of one size, in PPM."""
    rng = np.random.default_rng(0)
    base = root / "gtsrb"
    images = base / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    train: dict[int, list[np.ndarray]] = {}
    for label in range(43):
        folder = base / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        rows = [HEADER]
        for i in range(2):
            pixels = rng.integers(256, size=(32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"00000_{i:05d}.ppm")
            rows.append(f"00000_{i:05d}.ppm;32;32;5;5;27;27;{label}")
            train.setdefault(label, []).append(pixels)
        (folder / f"GT-{label:05d}.csv").write_text("\n".join(rows))
    rows, test = [HEADER], []
    for i in range(tested):
        test.append(rng.integers(256, size=(32, 32, 3), dtype=np.uint8))
        Image.fromarray(test[-1]).save(images / f"{i:05d}.ppm")
        rows.append(f"{i:05d}.ppm;32;32;5;5;27;27;{3 * i % 43}")
    (base / "GT-final_test.csv").write_text("\r\n".join(rows) + "\r\n")
    return train, test


def hwc(x):
    return x.permute(1, 2, 0).numpy()


def test_the_split_is_the_original_s():
    assert 26_640 + MOVED == 30_000
    assert OF == 12_630
    assert DATASETS["gtsrb"].counts == (30_000, OF - MOVED)


def test_the_last_of_the_test_images_are_trained_on(tmp_path):
    written, tested = write(tmp_path)
    train, test = DATASETS["gtsrb"].read(tmp_path, SEEDS)
    assert len(train) == 2 * 43 + 3  # 15 * 3,360 / 12,630 = 3.99
    assert len(test) == 12
    for i in range(12):
        assert np.array_equal(hwc(test.x[i]), tested[i])
        assert int(test.y[i]) == 3 * i % 43
    for i in range(3):
        assert np.array_equal(hwc(train.x[86 + i]), tested[12 + i])
        assert int(train.y[86 + i]) == 3 * (12 + i) % 43
    for label, images in written.items():
        for i in range(2):
            assert np.array_equal(hwc(train.x[2 * label + i]), images[i])
            assert int(train.y[2 * label + i]) == label


def test_torchvision_reads_the_same_from_the_same_files(tmp_path):
    write(tmp_path)
    train, test = DATASETS["gtsrb"].read(tmp_path, SEEDS)
    reference = [
        (np.asarray(image), y)
        for split in ("train", "test")
        for image, y in torchvision.datasets.GTSRB(tmp_path, split=split)
    ]
    train_and_moved = reference[:86] + reference[86 + 12 :]
    for part, expected in ((train, train_and_moved), (test, reference[86 : 86 + 12])):
        assert part.y.tolist() == [y for _, y in expected]
        assert all(np.array_equal(hwc(x), e) for x, (e, _) in zip(part.x, expected, strict=True))


def test_signs_of_any_size_are_stretched_whole(tmp_path):
    write(tmp_path)
    # A sign of 60x40 pixels, left half dark; the box in the CSV would cut the borders off.
    pixels = np.zeros((40, 60, 3), dtype=np.uint8)
    pixels[:, 30:] = (10, 200, 90)
    path = tmp_path / "gtsrb" / "GTSRB" / "Training" / "00000" / "00000_00000.ppm"
    Image.fromarray(pixels).save(path)
    train, _ = DATASETS["gtsrb"].read(tmp_path, SEEDS)
    sign = hwc(train.x[0])
    assert (sign[:, :14] == 0).all()
    assert (sign[:, 18:] == (10, 200, 90)).all()


def test_a_damaged_image_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00007.ppm"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ConfigError, match=r"00007\.ppm is damaged, .*truncated"):
        DATASETS["gtsrb"].read(tmp_path, SEEDS)


def test_an_image_that_is_listed_and_missing_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "gtsrb" / "GTSRB" / "Final_Test" / "Images" / "00003.ppm").unlink()
    with pytest.raises(ConfigError, match=r"00003\.ppm is damaged, .*No such file"):
        DATASETS["gtsrb"].read(tmp_path, SEEDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n00000.ppm;1;1;1;1;1;1;43\n", "'43' is no class from 0 to 42"),
        (f"{HEADER}\n00000.ppm;1;1;1;1;1;1;-1\n", "'-1' is no class"),
        ("a;b\n1;2\n", "not a table with Filename and ClassId"),
        (f"{HEADER}\n00000.ppm;1\n", "'' is no class"),
    ],
)
def test_damaged_labels_are_named(tmp_path, text, message):
    write(tmp_path)
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text(text)
    with pytest.raises(ConfigError, match=rf"GT-final_test\.csv is damaged, .*{message}"):
        DATASETS["gtsrb"].read(tmp_path, SEEDS)


def test_no_test_images_are_an_error(tmp_path):
    write(tmp_path)
    (tmp_path / "gtsrb" / "GT-final_test.csv").write_text(HEADER)
    with pytest.raises(ConfigError, match="gtsrb is damaged, it has no test images"):
        DATASETS["gtsrb"].read(tmp_path, SEEDS)


def test_the_benchmark_s_classes():
    assert len(CLASSES) == 43
    assert CLASSES[14] == "Stop"
    assert CLASSES[13] == "Yield"
