"""Trees of images: links to nothing, pipes, and images that are passed over are all told of."""

import logging
import os

import pytest

from entity.cli import main
from entity.config.schema import ConfigError
from entity.dataset import find
from entity.dataset.cinic10 import CINIC10
from entity.dataset.tree import _say_passed_over
from entity.seeding import Seeds

SEEDS = Seeds(0)
CLASSES = ("cat", "dog", "owl")


@pytest.fixture(params=["imagefolder:own", "cinic10"])
def tree(request, tmp_path, write_tree):
    """A data set of class folders, its folder, and a way to read it."""
    if request.param == "cinic10":
        folder, classes = tmp_path / "cinic-10", CINIC10.class_names
        write_tree(folder, ("train", "valid", "test"), classes, n=1)
    else:
        folder, classes = tmp_path / "own", CLASSES
        write_tree(folder, ("train", "test"), classes, n=2)
    _say_passed_over.cache_clear()
    read = lambda: find(request.param, tmp_path).read(tmp_path, SEEDS)  # noqa: E731
    return folder, classes, read


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize("part", ["train", "test"])
def test_an_image_that_is_a_link_to_nothing_is_named(tree, part, which):
    folder, classes, read = tree
    link = folder / part / classes[which] / "z.png"
    link.symlink_to("gone.png")
    with pytest.raises(
        ConfigError, match=r"is a symbolic link to nothing \(gone\.png\)"
    ) as refusal:
        read()
    assert str(link) in str(refusal.value)


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_class_that_is_a_link_to_nothing_is_named(tree, part):
    folder, _, read = tree
    (folder / part / "zebra").symlink_to("../gone")
    with pytest.raises(ConfigError, match=r"zebra is a symbolic link to nothing \(\.\./gone\)"):
        read()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("which", [0, -1])
def test_a_pipe_among_the_images_is_refused_and_not_waited_for(tree, which):
    folder, classes, read = tree
    os.mkfifo(folder / "train" / classes[which] / "a.png")
    with pytest.raises(ConfigError, match=r"a\.png is called as an image and is no file"):
        read()


def test_images_that_are_passed_over_are_said_once(tree, caplog):
    folder, classes, read = tree
    place = folder / "train" / classes[1]
    (place / "more").mkdir()
    (place / "b.GIF").write_bytes(b"")
    (place / "notes.csv").write_text("")
    (place / ".hidden").mkdir()
    with caplog.at_level(logging.WARNING):
        read(), read()
    said = [text for text in caplog.messages if "passed over" in text]
    assert len(said) == 1
    assert said[0].startswith(f"{place}: b.GIF and 1 more passed over; images are read that lie ")


def test_links_that_lead_somewhere_are_images(tree):
    folder, classes, read = tree
    train, _ = read()
    place = folder / "train" / classes[0]
    (place / "z.png").symlink_to(next(place.glob("*.png")))
    assert len(read()[0]) == len(train) + 1


def test_a_damaged_data_set_does_not_hide_the_others(tmp_path, write_tree, capsys):
    write_tree(tmp_path / "cinic-10", ("train", "valid", "test"), CINIC10.class_names, n=1)
    (tmp_path / "cinic-10" / "train" / "cat" / "z.png").symlink_to("gone.png")
    assert main(["data", "list", "--data_root", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "damaged" in said
    assert "mnist5k" in said
