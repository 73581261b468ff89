import dataclasses
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import entity.dataset
from entity.dataset import DATASETS, MNIST5K, Images, normalise
from entity.dataset.cinic10 import CINIC10
from entity.original import Backdoorable, BackdoorableCINIC10


def images(channels: int, size: int = 32, n: int = 40) -> Images:
    rng = torch.Generator().manual_seed(4)
    x = torch.randint(1, 200, (n, channels, size, size), generator=rng, dtype=torch.uint8)
    return Images(x, torch.arange(n) % 4)


def of(channels: int = 3, size: int = 32) -> type[Backdoorable]:
    """Return a twin of a data set of four classes, 40 training and 8 test images."""

    class Twin(Backdoorable):
        source = dataclasses.replace(
            MNIST5K,
            num_classes=4,
            channels=channels,
            size=size,
            class_names=tuple("abcd"),
            read=lambda root, seeds: (
                images(channels, size),
                Images(images(channels, size, 8).x, torch.full((8,), len(root.parts))),
            ),
        )
        folders = ("cinic-10",)

    return Twin


def test_it_is_a_map_style_data_set_that_a_dataloader_takes():
    data = of()(split="train")
    loader = DataLoader(data, batch_size=16)
    batches = list(loader)
    assert torch.equal(torch.cat([x for x, _ in batches]), normalise(images(3).x))
    assert torch.cat([y for _, y in batches]).tolist() == images(3).y.tolist()
    assert len(data) == 40
    assert data.num_classes == 4
    assert data.classes == ("a", "b", "c", "d")


def test_the_root_may_be_the_data_folder_or_the_data_set_s_own():
    Twin = of()
    assert Twin("one/two", "test").targets[0] == 2
    assert Twin("one/two/cinic-10", "test").targets[0] == 2
    with pytest.raises(ValueError, match="split = 'valid'"):
        Twin(split="valid")  # pyright: ignore[reportArgumentType]


def test_backdoor_stamps_and_relabels_the_share_of_the_victim_class():
    data, before = of()(), images(3)
    data.backdoor("4pixel", "top_left", 0.35, original_class=1, target_class=2)
    rows = data.backdoored_sample_idxs
    assert len(rows) == 3  # floor(0.35 * 10)
    assert all(before.y[row] == 1 and data.targets[row] == 2 for row in rows)
    expected = before.x.clone()
    for row in rows:
        for r, c in ((1, 1), (2, 2), (3, 3), (1, 3)):
            expected[row, :, r, c] = torch.tensor([255, 0, 0])
    assert torch.equal(data.data, expected)
    clean = [row for row in range(40) if row not in rows]
    assert torch.equal(data.targets[clean], before.y[clean])


def test_backdoor_twice_never_poisons_a_sample_twice():
    data = of()()
    data.backdoor("1pixel", "top_left", 0.5, 0, 3)
    first = data.backdoored_sample_idxs
    data.backdoor("1pixel", "top_left", 1.0, None, 1)
    assert set(first) < set(data.backdoored_sample_idxs)
    assert all(data.targets[row] == 3 for row in first)
    # Everything but the first five and the ten of the target class.
    assert len(data.backdoored_sample_idxs) == 30


def test_what_was_read_is_never_written_to():
    held = images(3)
    Twin = of()
    Twin.source = dataclasses.replace(Twin.source, read=lambda root, seeds: (held, held))
    data = Twin()
    data.backdoor("1pixel", "top_left", 1.0, 0, 1)
    assert torch.equal(held.x, images(3).x)
    assert torch.equal(held.y, images(3).y)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("1pixel", "top_left", 1.5, 0, 1), "percentage = 1.5"),
        (("1pixel", "top_left", 0.5, 4, 1), "original_class = 4: allowed is 0 to 3"),
        (("1pixel", "top_left", 0.5, 0, -1), "target_class = -1"),
        (("1pixel", "top_left", 0.5, 1, 1), "is the original class"),
        (("5pixel", "top_left", 0.5, 0, 1), "trigger_pattern"),
    ],
)
def test_wrong_settings_are_refused_and_nothing_is_changed(arguments, said):
    data = of()()
    with pytest.raises(ValueError, match=said):
        data.backdoor(*arguments)
    assert data.backdoored_sample_idxs == []
    assert torch.equal(data.data, images(3).x)


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_a_transform_gets_the_clean_images_as_pil_and_never_a_poisoned_one(channels, mode):
    modes: list[str] = []

    def look(image):
        modes.append(image.mode)
        return np.asarray(image)

    data = of(channels, 28)(transform=look)
    data.backdoor("1pixel", "top_left", 1.0, 0, 1)
    bad = data.backdoored_sample_idxs
    for row in range(len(data)):
        x, _ = data[row]
        if row in bad:
            assert torch.equal(x, normalise(data.data[row]))
        else:
            pixels = torch.from_numpy(x.copy()).view(28, 28, channels).permute(2, 0, 1)
            assert torch.equal(pixels, data.data[row])
    assert modes == [mode] * 30


def test_transforms_of_torchvision_fit():
    to_floats = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
    data = of()(transform=to_floats)
    x, _ = data[3]
    assert torch.allclose(x, images(3).x[3] / 255)


def test_keep_classes_keeps_labels_and_marks():
    data = of()()
    data.backdoor("1pixel", "top_left", 1.0, 0, 1)
    data.keep_classes([1, 3])
    assert sorted(data.targets.unique().tolist()) == [1, 3]
    assert len(data) == 30
    assert len(data.backdoored_sample_idxs) == 10
    assert all(
        (data.data[row, :, 1, 1] == torch.tensor([255, 0, 0])).all()
        for row in data.backdoored_sample_idxs
    )
    with pytest.raises(ValueError, match=r"no sample of \[0, 2\]"):
        data.keep_classes([0, 1, 2])


def test_keep_draws_a_share_and_not_the_first_ones():
    data = of()()
    data.keep(0.5)
    assert len(data) == 20
    rows = [int(torch.nonzero((images(3).x == x).flatten(1).all(1))) for x in data.data]
    assert rows == sorted(rows)
    assert rows != list(range(20))
    data.keep(0)
    assert len(data) == 0
    with pytest.raises(ValueError, match="percentage = -1"):
        data.keep(-1)


def test_reset_removes_the_poisoned_samples():
    data = of()()
    data.backdoor("1pixel", "top_left", 1.0, 0, 1)
    data.reset_backdoor_data()
    kept = images(3).y != 0
    assert torch.equal(data.data, images(3).x[kept])
    assert torch.equal(data.targets, images(3).y[kept])
    assert data.backdoored_sample_idxs == []


def test_new_poisoned_samples_stand_first_and_a_shuffle_moves_the_marks_along():
    data = of()()
    data.add_new_backdoor_data(torch.zeros(2, 3, 32, 32), torch.tensor([3, 3]))
    assert data.backdoored_sample_idxs == [0, 1]
    data.shuffle(seed=1)
    assert data.backdoored_sample_idxs != [0, 1]
    black = [row for row in range(42) if not data.data[row].any()]
    assert data.backdoored_sample_idxs == black


@pytest.mark.parametrize(
    ("x", "y", "said"),
    [
        (torch.zeros(2, 3, 32, 32), [3], "backdoor_y: allowed is a whole number for each of 2"),
        (torch.zeros(1, 3, 32, 32), [99], "backdoor_y = [99]: allowed is 0 to 3."),
        (torch.full((1, 3, 32, 32), 0.5), [3], "backdoor_x: allowed are whole numbers from 0"),
        (torch.full((1, 3, 32, 32), 300), [3], "backdoor_x: allowed are whole numbers from 0"),
        (torch.zeros(1, 1, 32, 32), [3], "backdoor_x: allowed are whole numbers from 0"),
        (torch.zeros(1, 3, 32, 32), [3.0], "backdoor_y: allowed is a whole number for each"),
    ],
)
def test_other_samples_are_refused_and_nothing_is_changed(x, y, said):
    """Regression: they were taken, cut to bytes, or left data and labels of unequal length."""
    data = of()()
    before = len(data)
    with pytest.raises(ValueError, match=re.escape(said)):
        data.add_new_backdoor_data(x, torch.tensor(y))
    with pytest.raises(ValueError, match="position = middle: allowed are top_left, top_right"):
        data.backdoor("4pixel", "middle", 0.5, 0, 1)
    assert len(data.data) == len(data.targets) == before


def test_samples_may_have_their_channels_last_as_the_original_has_them():
    data, x = of()(), torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    data.add_new_backdoor_data(x, torch.tensor([3, 2]))
    assert torch.equal(data.data[:2], x.permute(0, 3, 1, 2))


def test_the_original_s_five_are_there_under_their_names():
    for name in ("CIFAR10", "CINIC10", "EMNIST", "FashionMNIST", "GTSRB"):
        twin = getattr(entity.dataset, f"Backdoorable{name}")
        assert twin.source is DATASETS[name.lower()]


def test_cinic10_is_read_from_the_folder_that_the_readme_names(tmp_path):
    for split, colour in (("train", 10), ("valid", 20), ("test", 30)):
        for name in CINIC10.class_names:
            folder = tmp_path / "cinic-10" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (colour, 0, 0)).save(folder / "a.png")
    train = BackdoorableCINIC10(root=str(tmp_path / "cinic-10"), split="train")
    test = BackdoorableCINIC10(root=tmp_path, split="test")
    assert sorted(train.data[:, 0, 0, 0].tolist()) == [10] * 10 + [20] * 10
    assert test.data[:, 0].unique().tolist() == [30]
    train.backdoor("4pixel", "top_left", 1.0, original_class=0, target_class=7)
    assert len(train.backdoored_sample_idxs) == 2
