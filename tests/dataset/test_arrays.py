"""A data set that a Python function makes: what it may return, and that it is cached and mapped."""

import sys

import numpy as np
import pytest
import torch

from entity.config.schema import ConfigError
from entity.dataset import Arrays, Augmentation, PythonData, load, normalise
from entity.dataset.cache_folder import Mapped
from entity.seeding import Seeds

NAMES = ("cat", "dog")


def labels(n):
    return np.arange(n) % 2


def data(x, test=None, names=NAMES, **how):
    test = x[:4] if test is None else test
    return Arrays((x, labels(len(x))), (test, labels(len(test))), names, **how)


def augmented(**changes):
    moved = Augmentation(**{"pad": 1, "flip": True, "degrees": 5, **changes})
    return data(np.zeros((8, 1, 6, 6), np.uint8), augmentation=moved)


def own(function, mark="1"):
    return PythonData("own", function, "", mark)


@pytest.mark.parametrize(
    ("x", "dtype", "shape"),
    [
        (np.zeros((8, 2, 6, 6), np.uint8), torch.uint8, None),
        (np.zeros((8, 1, 4, 6), np.uint8), torch.uint8, (1, 4, 6)),
        (np.random.default_rng(1).normal(size=(8, 5)), torch.float32, (5,)),
        (torch.randn(8, 7, 3), torch.float32, (7, 3)),
        ([[1, 2, 3], [4, 5, 6]] * 4, torch.int64, (3,)),
        (np.zeros((8, 1, 6, 6), np.float32), torch.float32, (1, 6, 6)),
    ],
)
def test_samples_of_any_shape_come_back_as_they_were(tmp_path, x, dtype, shape):
    calls = []

    def function():
        calls.append(1)
        return data(x)

    source = own(function).source(tmp_path)
    assert source.shape == shape
    assert source.class_names == NAMES
    split = load(source, tmp_path, Seeds(1), held_out=2)
    assert split.train.dtype == dtype
    whole = torch.as_tensor(np.asarray(x)).to(dtype)
    train, test = source.read(tmp_path, Seeds(1))
    assert torch.equal(train.x, whole)
    assert torch.equal(test.x, whole[:4])
    assert torch.equal(normalise(train.x), whole if dtype != torch.uint8 else whole - 1.0)
    assert isinstance(train, Mapped)
    assert len(calls) == 1
    again = own(function).source(tmp_path)  # a later process finds all of it in the cache
    assert again.read(tmp_path, Seeds(1))[0].known_sha256() == train.sha256()
    assert len(calls) == 1
    assert len(split.server) == 2
    assert len(split.train) == 6


def test_other_code_makes_it_anew_and_only_the_newest_cache_is_kept(tmp_path):
    one = own(lambda: data(np.zeros((8, 3)))).source(tmp_path)
    two = own(lambda: data(np.ones((8, 3))), mark="2").source(tmp_path)
    assert one.read(tmp_path, Seeds(1))[0].x.sum() == 0
    assert two.read(tmp_path, Seeds(1))[0].x.sum() == 24


def test_what_the_function_says_of_the_set_is_cached_with_it(tmp_path):
    moved = Augmentation(pad=1, flip=True, degrees=5)
    made = lambda: data(np.zeros((8, 1, 6, 6), np.uint8), held_out=4, augmentation=moved)  # noqa: E731
    for _ in range(2):
        source = own(made)._source(tmp_path, [])
        assert (source.held_out, source.augmentation) == (4, moved)


def test_the_server_holds_ten_of_each_class_or_one_less_than_there_are(tmp_path):
    large = own(lambda: data(np.zeros((60, 2))), "large").source(tmp_path)
    small = own(lambda: data(np.zeros((8, 2))), "small").source(tmp_path)
    assert (large.held_out, small.held_out) == (20, 6)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (3, "its function returned a int; it must return entity.dataset.Arrays."),
        (data(np.zeros((8, 3)), names=("a",)), 'class_names = ["a"]: allowed are two or more'),
        (data(np.zeros((8, 3)), names=None), "class_names = null: allowed is a list of two"),
        (data(np.zeros((8, 3)), names="ab"), 'class_names = "ab": allowed is a list of two'),
        (data(np.zeros((8, 3)), held_out="x"), 'held_out = "x": allowed is a whole number'),
        (data(np.zeros((8, 3)), held_out=-1), "held_out = -1: allowed is a whole number"),
        (data(np.zeros((8, 3)), augmentation=3), "augmentation = 3: allowed is an entity.dataset"),
        (augmented(pad=-1), "augmentation.pad = -1: allowed is a whole number from 0."),
        (augmented(pad=1.5), "augmentation.pad = 1.5: allowed is a whole number from 0."),
        (augmented(flip=2), "augmentation.flip = 2: allowed is True or False."),
        (augmented(degrees=np.inf), "augmentation.degrees = Infinity: allowed is a finite number"),
        (augmented(degrees="5"), 'augmentation.degrees = "5": allowed is a finite number'),
        (data(np.full((8, 3), 2**63, np.uint64)), "whole numbers up to 9223372036854775808; allow"),
        (data(np.full((8, 3), 1e300)), "train has samples that are not finite"),
        (data(np.zeros((8, 3)), names=("a", "b", "c")), "train has no sample of class c."),
        (data(np.zeros((8, 3)), np.zeros((4, 2))), "they must be alike"),
        (data(np.full((8, 3), np.nan)), "train has samples that are not finite"),
        (data(np.zeros((8, 3), np.uint8)), "bytes are images (N, channels, height, width)"),
        (data(np.array([["a"]] * 8)), "train has samples of <U1; allowed are numbers."),
        (data(np.zeros(8)), "train has samples of shape (8,)"),
        (Arrays((np.zeros((8, 3)), np.ones(8)), (), NAMES), "allowed are as many whole numbers"),
        (Arrays((np.zeros((8, 3)), labels(7)), (), NAMES), "allowed are as many whole numbers"),
        (Arrays((np.zeros((8, 3)), labels(8) + 1), (), NAMES), "labels from 1 to 2; allowed are 0"),
        (Arrays((np.zeros((8, 3)), labels(8)), (), NAMES), "test must be a pair of arrays"),
        (
            data(np.zeros((8, 3)), augmentation=Augmentation(1, flip=False, degrees=0)),
            "augmentation is for square images",
        ),
    ],
)
def test_what_is_no_data_set_is_refused_in_a_sentence(tmp_path, returned, said):
    with pytest.raises(ConfigError) as refusal:
        own(lambda: returned).source(tmp_path)
    text = str(refusal.value)
    assert text.startswith("dataset = own: ")
    assert said in text
    assert not (tmp_path / ".drop-cache").exists()


def test_a_function_that_fails_is_named_with_its_line(tmp_path):
    with pytest.raises(
        ConfigError, match=r"^dataset = own: its function failed at .*\.py, line \d+"
    ):
        own(lambda: 1 // 0).source(tmp_path)


def test_numbers_of_numpy_are_whole_numbers(tmp_path):
    found = own(lambda: data(np.zeros((8, 3)), held_out=np.int64(2)))
    assert found.source(tmp_path).held_out == 2


def test_numbers_of_numpy_move_images_and_reach_up_to_2_63(tmp_path):
    numbers = {"pad": np.int64(1), "flip": np.True_, "degrees": np.float32(2.5)}
    assert own(lambda: augmented(**numbers)).source(tmp_path).augmentation == Augmentation(
        pad=1, flip=True, degrees=2.5
    )
    top = own(lambda: data(np.full((8, 3), 2**63 - 1, np.uint64)), "2").source(tmp_path)
    assert int(top.read(tmp_path, Seeds(1))[0].x.max()) == 2**63 - 1


def test_the_line_that_is_named_is_the_functions_own(tmp_path):
    def mine():
        return np.load(tmp_path / "nowhere.npy")  # which fails in a file of NumPy

    line = mine.__code__.co_firstlineno + 1
    with pytest.raises(ConfigError, match=rf"test_arrays\.py, line {line}: FileNotFoundError: "):
        own(mine).source(tmp_path)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (lambda: sys.exit(3), "SystemExit: 3."),
        (lambda path: path, "missing 1 required positional argument: 'path'."),
    ],
)
def test_a_function_that_leaves_or_takes_arguments_is_a_sentence(tmp_path, function, said):
    with pytest.raises(ConfigError, match=r"^dataset = own: its function failed") as refusal:
        own(function).source(tmp_path)
    assert said in str(refusal.value)
    assert f"failed at {__file__}, line {function.__code__.co_firstlineno}: " in str(refusal.value)
