"""FEMNIST in the layout of LEAF's files, made up and small, and its writers as clients."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from entity.cli.preview import convention
from entity.config.fields import ClientConfig
from entity.config.schema import ConfigError
from entity.dataset import DATASETS, Images, load, partition
from entity.dataset.femnist import CLASSES, FILES
from entity.seeding import Seeds
from entity.setup.assembly import recruit

SEEDS = Seeds(71)
SOURCE = DATASETS["femnist"]
SIZES = {"f0000_14": 12, "f0001_41": 20, "f0003_21": 11, "f0007_08": 10, "f0009_10": 5}
"""Training images of each writer; LEAF's names of writers."""


def images_of(writer: str, n: int) -> tuple[np.ndarray, list[int]]:
    """Return bytes (n, 784), the first of them the writer's number, and labels that go round."""
    number = sorted(SIZES).index(writer)
    pixels = 51 * np.random.default_rng(number).integers(6, size=(n, 784), dtype=np.uint8)
    pixels[:, 0], pixels[:, 1] = number, 255
    return pixels, [(9 * i + 7 * number) % 62 for i in range(n)]


def as_leaf(writers: dict[str, int], fractions: bool = True) -> str:
    """Return a file of LEAF's: dark on white, pixels fractions of 255 as its script writes them."""
    data = {}
    for writer, n in writers.items():
        pixels, labels = images_of(writer, n)
        paper = 255 - pixels
        x = (paper / 255).tolist() if fractions else paper.tolist()
        data[writer] = {"x": x, "y": labels}
    return json.dumps(
        {"users": list(writers), "num_samples": list(writers.values()), "user_data": data}
    )


def write(root: Path, fractions: bool = True) -> Path:
    """Write two training files, the first with later writers, and a test file."""
    folder = root / "femnist"
    for part in ("train", "test"):
        (folder / part).mkdir(parents=True)
    names = list(SIZES)
    for file, writers in (("0", names[3:]), ("1", names[:3])):
        text = as_leaf({writer: SIZES[writer] for writer in writers}, fractions)
        (folder / "train" / f"all_data_{file}_niid_0_keep_0_train_9.json").write_text(text)
    test = as_leaf(dict.fromkeys(names[:2], 6), fractions)
    (folder / "test" / "all_data_0_niid_0_keep_0_test_9.json").write_text(test)
    return folder


@pytest.mark.parametrize("fractions", [True, False])
def test_every_image_of_every_writer_is_read_pixel_by_pixel(tmp_path, fractions):
    write(tmp_path, fractions)
    train, test = SOURCE.read(tmp_path, SEEDS)
    assert train.shape == test.shape == (1, 28, 28)
    parts = [images_of(writer, SIZES[writer]) for writer in sorted(SIZES)]
    pixels = np.concatenate([x for x, _ in parts]).reshape(-1, 1, 28, 28)
    assert np.array_equal(train.x.numpy(), pixels)
    assert train.y.tolist() == [label for _, labels in parts for label in labels]
    assert len(test) == 2 * 6
    assert np.array_equal(test.x[:6].numpy().reshape(6, 784), images_of("f0000_14", 6)[0])


def test_classes_are_leafs():
    """Its script numbers 0 to 9 the digits, 10 to 35 the capitals, 36 to 61 the small letters."""
    assert (CLASSES[9], CLASSES[10], CLASSES[35], CLASSES[36], CLASSES[61]) == tuple("9AZaz")
    assert len(CLASSES) == 62


def test_the_cache_knows_the_writers_and_a_second_read_opens_no_file(tmp_path, monkeypatch):
    write(tmp_path)
    first, _ = SOURCE.read(tmp_path, SEEDS)
    monkeypatch.setattr("entity.dataset.femnist.read_bytes", None)
    second, _ = SOURCE.read(tmp_path, SEEDS)
    for train in (first, second):
        assert train.facts == {"client_sizes": [SIZES[writer] for writer in sorted(SIZES)]}
    split = load(SOURCE, tmp_path, SEEDS, 0)
    assert torch.equal(split.owners, split.train.x[:, 0, 0, 0].long())  # the first pixel says it


def test_what_the_server_holds_is_in_no_writers_share(tmp_path):
    x = torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1)
    images = Images(x, torch.arange(40) % 2, facts={"client_sizes": [10, 30]})
    source = replace(SOURCE, num_classes=2, read=lambda *_: (images, images))
    split = load(source, tmp_path, SEEDS, 8)
    held, left = split.server.x.flatten(), split.train.x.flatten()
    assert len(held) == 8
    assert sorted([*held.tolist(), *left.tolist()]) == list(range(40))
    assert split.owners.tolist() == [int(number >= 10) for number in left]


def test_without_a_place_for_a_cache_the_writers_are_known_too(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setattr("entity.dataset.cache.cache_folders", lambda root: [])
    split = load(SOURCE, tmp_path, SEEDS, 0)
    assert torch.equal(split.owners, split.train.x[:, 0, 0, 0].long())


def test_whose_an_image_is_counts_for_what_the_data_are(tmp_path):
    write(tmp_path)
    split = load(SOURCE, tmp_path, SEEDS, 0)
    other = replace(split, owners=split.owners.flip(0))
    assert split.digest() == load(SOURCE, tmp_path, SEEDS, 0).digest() != other.digest()
    assert replace(split, owners=None).digest() != split.digest()


NATURAL = ClientConfig(1, 0.1, 8, IID=False, partition="natural")


@pytest.fixture
def split(tmp_path):
    write(tmp_path)
    return load(SOURCE, tmp_path, SEEDS, 0)


def writers_of(split, shares) -> list[set[int]]:
    return [set(split.train.subset(share).x[:, 0, 0, 0].tolist()) for share in shares]


def test_a_client_is_one_writer_with_all_that_it_wrote(split):
    shares = partition(split.train.y, 4, NATURAL, SEEDS, split.owners)
    assert writers_of(split, shares) == [{0}, {1}, {2}, {3}]
    assert shares.sizes.tolist() == [12, 20, 11, 10]  # the writer of five is left out


def test_with_fewer_clients_writers_are_drawn_and_the_others_are_nobodys(split):
    found = [partition(split.train.y, 2, NATURAL, Seeds(seed), split.owners) for seed in range(9)]
    drawn = [writers_of(split, shares) for shares in found]
    assert all(len(first) == len(second) == 1 for first, second in drawn)
    assert all(min(first) < min(second) for first, second in drawn)
    assert len({str(pair) for pair in drawn}) > 2
    for (first, second), shares in zip(drawn, found, strict=True):
        wrote = [list(SIZES.values())[min(writer)] for writer in (first, second)]
        assert shares.sizes.tolist() == wrote
    again = partition(split.train.y, 2, NATURAL, Seeds(3), split.owners)
    assert torch.equal(again.index, found[3].index)


def test_a_part_of_the_data_leaves_each_writer_its_part(split):
    half = replace(NATURAL, ADR=0.5, min_samples=3)
    shares = partition(split.train.y, 3, half, SEEDS, split.owners)
    whole = partition(split.train.y, 3, replace(half, ADR=1.0), SEEDS, split.owners)
    assert all(len(writers) == 1 for writers in writers_of(split, shares))
    assert int(shares.sizes.sum()) < int(whole.sizes.sum())


@pytest.mark.parametrize(("clients", "least", "most"), [(5, 10, 4), (6, 1, 5), (2, 15, 1)])
def test_more_clients_than_writers_are_refused_with_what_to_do(split, clients, least, most):
    config = replace(NATURAL, min_samples=least)
    with pytest.raises(ConfigError) as caught:
        partition(split.train.y, clients, config, SEEDS, split.owners)
    text = str(caught.value)
    assert text.startswith(f"federation.size = {clients}: allowed is at most {most}, as so many of")
    assert f"own 5 clients have client.min_samples = {least} training samples" in text
    assert "take more of the data set" in text
    assert "\n" not in text


def test_all_other_splits_mix_the_writers(split):
    shares = partition(split.train.y, 4, replace(NATURAL, IID=True), SEEDS, split.owners)
    assert min(map(len, writers_of(split, shares))) > 2


def test_an_experiment_has_writers_as_clients(tmp_path, experiment):
    write(tmp_path)
    changes = {
        **{"dataset": "femnist", "client.IID": False, "client.partition": "natural"},
        **{"client.ADR": 1.0, "settings.datasets_path": str(tmp_path), "server.held_out": 0},
        "client.attack": None,
    }
    split, roster = recruit(experiment(changes), SEEDS)
    assert writers_of(split, roster.shares) == [{0}, {1}, {2}, {3}]
    assert convention(NATURAL) == "natural, the data set's own clients"


def test_a_data_set_without_clients_of_its_own_is_refused(experiment):
    with pytest.raises(
        ConfigError, match=r"natural: mnist5k has no clients .* femnist \(writers\)"
    ):
        experiment({"client.IID": False, "client.partition": "natural"})
    experiment({"client.partition": "natural"})  # IID: of no effect


def test_what_is_missing_says_where_it_comes_from(tmp_path):
    (tmp_path / "femnist" / "train").mkdir(parents=True)
    with pytest.raises(ConfigError) as caught:
        load(SOURCE, tmp_path, SEEDS)
    text = str(caught.value)
    for part in (str(tmp_path / "femnist"), "preprocess.sh", "github.com/TalwalkarLab/leaf"):
        assert part in text
    assert FILES.download is None


GOOD = {"users": ["a"], "num_samples": [1], "user_data": {"a": {"x": [[0.0] * 784], "y": [3]}}}


def with_writer(**changes):
    return {**GOOD, "user_data": {"a": {**GOOD["user_data"]["a"], **changes}}}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"users": ["a"]}, "user_data"),
        ({**GOOD, "users": ["b"]}, "'b'"),
        (with_writer(x=[[0.0] * 783]), "783 numbers an image instead of 784"),
        (with_writer(y=[62]), "a class that is not from 0 to 61"),
        (with_writer(y=[-1]), "a class that is not"),
        (with_writer(y=[1.5]), "a class that is not"),
        (with_writer(y=[1, 2, 3]), "cannot reshape"),
        (with_writer(x=[[-1.0] * 784]), "pixels from -1 to -1"),
        (with_writer(x=[[256] * 784]), "pixels from 256 to 256"),
        (with_writer(x=[["dark"] * 784]), "dark"),
        ([], "list indices"),
        (with_writer(x=[], y=[]), "it has no image"),
    ],
)
def test_a_file_that_is_none_of_leafs_is_named(tmp_path, content, said):
    folder = write(tmp_path)
    for file in sorted((folder / "train").glob("*.json"))[1:]:
        file.unlink()
    (file,) = (folder / "train").glob("*.json")
    file.write_text(json.dumps(content))
    with pytest.raises(
        ConfigError, match=f"{file.name} is damaged, .*{said}.*: remove it, and have"
    ):
        SOURCE.read(tmp_path, SEEDS)


def test_a_file_that_is_no_json_is_named(tmp_path):
    folder = write(tmp_path)
    (file, *_) = (folder / "test").glob("*.json")
    file.write_text(file.read_text()[:-9])
    with pytest.raises(ConfigError, match=f"{file.name} is damaged, it is not as LEAF writes it"):
        SOURCE.read(tmp_path, SEEDS)
