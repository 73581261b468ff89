import os

import numpy as np
import pytest
from PIL import Image

from entity.config.schema import ConfigError
from entity.dataset import find, imagefolder, load
from entity.dataset.cache import caches
from entity.dataset.imagefolder import image_folders
from entity.seeding import Seeds

SEEDS = Seeds(71)
NAME = "imagefolder:own"


@pytest.fixture
def own(tmp_path, write_tree):
    """Three classes of 24x24 photographs."""
    write_tree(tmp_path / "own", ("train", "test"), ("b", "a", "c"), n=3, shape=(24, 24, 3))
    return tmp_path / "own"


def test_classes_size_and_channels_are_found_out(own):
    source = find(NAME, own.parent)
    assert source.name == NAME
    assert source.class_names == ("a", "b", "c")
    assert (source.num_classes, source.channels, source.size) == (3, 3, 24)
    assert (source.augmentation.pad, source.augmentation.flip) == (3, True)
    assert source.augmentation.degrees == 15


def test_pixels_are_those_of_the_files(tmp_path, write_tree):
    written = write_tree(tmp_path / "x", ("train", "test"), ("a", "b"), shape=(9, 9, 3))
    for part, images in zip(
        ("train", "test"), find("imagefolder:x", tmp_path).read(tmp_path, SEEDS), strict=True
    ):
        paths = sorted(path for path in written if path.startswith(part))
        assert images.y.tolist() == [0, 0, 1, 1]
        for x, path in zip(images.x, paths, strict=True):
            assert np.array_equal(x.permute(1, 2, 0), written[path])


@pytest.mark.parametrize("extra", ["valid", "val"])
def test_what_is_for_validation_is_trained_on(own, write_tree, extra):
    write_tree(own, [extra], ("a", "b", "c"), n=2, shape=(24, 24, 3))
    train, test = find(NAME, own.parent).read(own.parent, SEEDS)
    assert (len(train), len(test)) == (15, 9)


def test_grey_images_have_one_channel_and_are_not_flipped(tmp_path, write_tree):
    written = write_tree(tmp_path / "own", ("train", "test"), "ab", shape=(16, 16))
    source = find(NAME, tmp_path)
    assert source.channels == 1
    assert not source.augmentation.flip
    train, _ = source.read(tmp_path, SEEDS)
    assert np.array_equal(train.x[0, 0], written["train/a/0.png"])


def test_an_absolute_path_needs_no_data_folder(own, tmp_path):
    nowhere = tmp_path / "nowhere"
    source = find(f"imagefolder:{own}", nowhere)
    train, _ = source.read(nowhere, SEEDS)
    assert len(train) == 9
    assert not nowhere.exists()


def test_set_size_and_channels_are_made_of_whatever_there_is(own):
    Image.new("RGB", (50, 20), (200, 200, 200)).save(own / "train" / "a" / "0.png")
    source = find(NAME, own.parent, 8, 1)
    assert (source.channels, source.size) == (1, 8)
    train, test = source.read(own.parent, SEEDS)
    assert tuple(train.x.shape[1:]) == tuple(test.x.shape[1:]) == (1, 8, 8)
    assert (train.x[0] == 200).all()


def test_a_size_that_is_that_of_the_images_changes_no_pixel(own):
    found, _ = find(NAME, own.parent).read(own.parent, SEEDS)
    told, _ = find(NAME, own.parent, 24, 3).read(own.parent, SEEDS)
    assert np.array_equal(found.x, told.x)


def test_images_of_different_sizes_ask_for_image_size(own):
    Image.new("RGB", (24, 25)).save(own / "test" / "c" / "1.png")
    with pytest.raises(ConfigError, match=r"c/1\.png has 24x25 .* set image_size to have all"):
        find(NAME, own.parent).read(own.parent, SEEDS)


def test_images_that_are_no_squares_ask_for_image_size(own):
    Image.new("RGB", (24, 25)).save(own / "train" / "a" / "0.png")
    with pytest.raises(ConfigError, match=r"^image_size = null: .*a/0\.png has 24x25 .*image_size"):
        find(NAME, own.parent)


def test_colour_among_grey_images_asks_for_image_channels(tmp_path, write_tree):
    write_tree(tmp_path / "own", ("train", "test"), "ab", shape=(16, 16))
    Image.new("RGB", (16, 16)).save(tmp_path / "own" / "test" / "b" / "1.png")
    with pytest.raises(ConfigError, match=r"b/1\.png is in colour, .*image_channels = 3"):
        find(NAME, tmp_path).read(tmp_path, SEEDS)
    _, test = find(NAME, tmp_path, None, 3).read(tmp_path, SEEDS)
    assert test.x.shape[1] == 3


@pytest.mark.parametrize("where", ["train/a/0.png", "test/b/2.png"])
def test_pixels_of_16_bits_are_refused_and_not_cut_off(own, where):
    Image.fromarray(np.full((24, 24), 4000, dtype=np.uint16)).save(own / where)
    with pytest.raises(ConfigError, match=rf"{where} is damaged, it has pixels of more than 8"):
        find(NAME, own.parent).read(own.parent, SEEDS)


@pytest.mark.parametrize("where", ["train/a/0.png", "train/c/2.png"])
def test_a_damaged_image_is_named(own, where):
    (own / where).write_bytes(b"no image")
    with pytest.raises(ConfigError, match=rf"{where} is damaged, cannot identify .*: replace"):
        find(NAME, own.parent).read(own.parent, SEEDS)


def test_a_folder_that_is_missing_is_told_with_those_that_are_there(own):
    with pytest.raises(ConfigError, match=r"no folder .*/owm with train/<class>/\* .* mean own\?"):
        find("imagefolder:owm", own.parent)
    with pytest.raises(ConfigError, match=r"In .*: own\.$"):
        find("imagefolder:", own.parent)


def test_a_part_or_classes_that_are_missing_are_told(own, tmp_path, write_tree):
    write_tree(tmp_path / "half", ["train"], "ab")
    with pytest.raises(ConfigError, match="half has no folder test; it needs train/<class>"):
        find("imagefolder:half", tmp_path)
    write_tree(tmp_path / "one", ("train", "test"), "a")
    with pytest.raises(ConfigError, match="has 1 folders; it needs one for each of at least two"):
        find("imagefolder:one", tmp_path)
    write_tree(tmp_path / "none", ("train", "test"), "ab", n=0)
    with pytest.raises(ConfigError, match=r"with images \(.bmp, "):
        find("imagefolder:none", tmp_path)


def test_a_class_without_training_images_and_one_only_of_the_test_are_named(own, write_tree):
    write_tree(own, ["train"], "d", n=0)
    with pytest.raises(ConfigError, match="own has no image of d among its 9"):
        find(NAME, own.parent).read(own.parent, SEEDS)
    (own / "train" / "d").rmdir()
    write_tree(own, ["test"], "e", n=1, shape=(24, 24, 3))
    with pytest.raises(ConfigError, match="test/e is none of the 3 classes"):
        find(NAME, own.parent).read(own.parent, SEEDS)


@pytest.mark.parametrize("cached", [True, False])
def test_a_class_that_comes_empty_is_refused_though_there_is_a_cache(own, cached):
    """It changes no file, and would move the labels of all classes after it."""
    if cached:
        find(NAME, own.parent).read(own.parent, SEEDS)
    (own / "train" / "aa").mkdir()
    with pytest.raises(ConfigError, match="own has no image of aa among its 9"):
        find(NAME, own.parent).read(own.parent, SEEDS)


def test_a_class_that_loses_its_empty_folder_is_refused_though_there_is_a_cache(own, write_tree):
    write_tree(own, ["valid", "test"], ["0"], n=2, shape=(24, 24, 3))
    (own / "train" / "0").mkdir()
    assert len(find(NAME, own.parent).read(own.parent, SEEDS)[0]) == 11
    (own / "train" / "0").rmdir()
    with pytest.raises(ConfigError, match="valid/0 is none of the 3 classes"):
        find(NAME, own.parent).read(own.parent, SEEDS)


def test_folders_that_could_be_used_are_listed(own, write_tree):
    write_tree(own.parent / "half", ["train"], "ab")
    assert image_folders(own.parent) == ["own"]
    assert image_folders(own.parent / "nowhere") == []


def test_caches_of_two_sizes_live_side_by_side(own):
    for _ in range(2):
        for size in (8, 12):
            find(NAME, own.parent, size).read(own.parent, SEEDS)
    assert len(list((own.parent / ".drop-cache").iterdir())) == 2


def test_an_image_folder_is_split_like_any_other_data(own):
    split = load(find(NAME, own.parent), own.parent, SEEDS, held_out=3)
    assert (len(split.train), len(split.server), len(split.test)) == (6, 3, 9)


@pytest.mark.parametrize("where", ["~no-such-user/x", "a" * 300, "a\0b", "\ud800", "..", "/"])
def test_whatever_is_named_is_read_or_refused(own, where):
    with pytest.raises(ConfigError, match=r"^dataset = "):
        find(f"imagefolder:{where}", own.parent)


def test_numeric_names_are_classes_in_the_order_of_their_numbers(tmp_path, write_tree):
    """With folders 0 to 11, class 2 is folder "2" and not "10"."""
    names = [str(number) for number in range(12)]
    written = write_tree(tmp_path / "own", ("train", "test"), names, n=1, shape=(9, 9, 3))
    source = find(NAME, tmp_path)
    assert source.class_names == tuple(names)
    train, _ = source.read(tmp_path, SEEDS)
    for x, y in zip(train.x, train.y.tolist(), strict=True):
        assert np.array_equal(x.permute(1, 2, 0), written[f"train/{y}/0.png"])


def test_other_names_follow_and_stay_as_they_were(tmp_path, write_tree):
    write_tree(tmp_path / "own", ("train", "test"), ("10", "b", "9", "a", "01"), shape=(9, 9, 3))
    assert find(NAME, tmp_path).class_names == ("01", "9", "10", "a", "b")


def test_a_cache_of_the_old_order_is_not_taken_for_the_new_one(tmp_path, write_tree, monkeypatch):
    write_tree(tmp_path / "own", ("train", "test"), ("2", "10"), n=1, shape=(9, 9, 3))
    with monkeypatch.context() as before:
        before.setattr(imagefolder, "_as_a_number", lambda name: name)
        old = find(NAME, tmp_path)
        assert old.class_names == ("10", "2")
        old_train, _ = old.read(tmp_path, SEEDS)
    train, _ = find(NAME, tmp_path).read(tmp_path, SEEDS)
    pixels = {y: x for x, y in zip(train.x, train.y.tolist(), strict=True)}
    former = {y: x for x, y in zip(old_train.x, old_train.y.tolist(), strict=True)}
    assert np.array_equal(pixels[0], former[1])
    assert np.array_equal(pixels[1], former[0])


def test_a_class_is_shown_with_its_name_where_that_is_not_its_number(tmp_path, write_tree):
    write_tree(tmp_path / "own", ("train", "test"), ("1", "2", "10"), shape=(9, 9, 3))
    source = find(NAME, tmp_path)
    assert [source.named(label) for label in range(3)] == ["0 (1)", "1 (2)", "2 (10)"]
    assert find("mnist5k", tmp_path).named(7) == "7"
    assert find("cifar10", tmp_path).named(7) == "7 (horse)"


def test_a_folder_outside_the_data_folder_has_its_cache_beside_it(tmp_path, write_tree):
    (tmp_path / "data").mkdir()
    write_tree(tmp_path / "mine" / "pets", ("train", "test"), "ab", shape=(9, 9))
    root = tmp_path / "data"
    find(f"imagefolder:{tmp_path / 'mine' / 'pets'}", root).read(root, SEEDS)
    assert len(caches(tmp_path / "mine")) == 1
    assert caches(root) == []
    find(f"imagefolder:{tmp_path / 'mine' / 'pets'}", tmp_path / "none").read(root, SEEDS)
    assert len(caches(tmp_path / "mine")) == 1


def test_two_folders_of_one_name_never_share_a_cache(tmp_path, write_tree):
    """Their files have the same names, sizes and times."""
    for place in ("one", "two"):
        write_tree(tmp_path / place / "pets", ("train", "test"), "ab", shape=(9, 9))
        for path in (tmp_path / place).rglob("*.png"):
            grey = 0 if place == "one" else 255
            Image.new("L", (9, 9), grey).save(path, compress_level=0)
            os.utime(path, (1e9, 1e9))
    link = tmp_path / "pets"
    found = []
    for place in ("one", "two"):
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path / place / "pets")
        train, _ = find("imagefolder:pets", tmp_path).read(tmp_path, SEEDS)
        found.append(int(train.x.max()))
        train, _ = find(f"imagefolder:{tmp_path / place / 'pets'}", tmp_path).read(tmp_path, SEEDS)
        found.append(int(train.x.max()))
    assert found == [0, 0, 255, 255]
