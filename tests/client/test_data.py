import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.client import LocalData
from entity.dataset import Augmentation, normalise


def data_of(n, poisoned=()):
    """Images whose every pixel says their row."""
    x = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4).clone()
    marked = torch.zeros(n, dtype=torch.bool)
    marked[list(poisoned)] = True
    return LocalData(x, torch.arange(n) % 3, marked)


def rng(seed=1):
    return torch.Generator().manual_seed(seed)


def rows_of(batch):
    """The rows that a batch of `data_of` holds."""
    return ((batch[0][:, 0, 0, 0] + 1) * 127.5).round().long().tolist()


class Blacken(Augmentation):
    """An augmentation that blots everything out."""

    def __init__(self):
        super().__init__(pad=1, flip=True, degrees=1)

    def apply(self, x, draws):
        return torch.zeros_like(x)


def test_batches_are_the_images_in_range_with_their_labels_in_channels_last():
    data = data_of(20)
    batches = list(data.batches(8, 2, rng()))
    assert [len(y) for _, y in batches] == [8, 8, 4, 8, 8, 4]
    for x, y in batches:
        rows = rows_of((x, y))
        assert torch.equal(x, normalise(data.x[rows]))
        assert torch.equal(y, data.y[rows])
        assert x.is_contiguous(memory_format=torch.channels_last)
    assert sorted(row for batch in batches[:3] for row in rows_of(batch)) == list(range(20))
    assert [rows_of(b) for b in batches[:3]] != [rows_of(b) for b in batches[3:]]
    again = list(data.batches(8, 2, rng()))
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))


@pytest.mark.parametrize(
    ("n", "batch_size", "sizes"),
    [(1, 8, [1]), (9, 8, [8]), (10, 8, [8, 2]), (17, 8, [8, 8]), (3, 100, [3]), (2, 1, [1, 1])],
)
def test_there_is_no_batch_of_one_sample_beside_others(n, batch_size, sizes):
    assert [len(y) for _, y in data_of(n).batches(batch_size, 1, rng())] == sizes


@pytest.mark.parametrize("in_every_batch", [False, True])
def test_poisoned_samples_are_not_augmented(in_every_batch):
    data = data_of(20, poisoned=[3, 7, 11])
    batches = data.batches(6, 4, rng(), augmentation=Blacken(), in_every_batch=in_every_batch)
    seen = set()
    for batch in batches:
        rows = rows_of(batch)
        assert set(rows) <= {0, 3, 7, 11}  # the clean ones are black
        seen |= set(rows)
    assert seen == {0, 3, 7, 11}


def test_clean_samples_are_augmented_anew_in_every_epoch():
    grid = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(12, 1, 1, 1)
    data = LocalData(grid, torch.zeros(12), torch.zeros(12, dtype=torch.bool))
    shift = Augmentation(pad=2, flip=True, degrees=0)
    epochs = [x for x, _ in data.batches(12, 2, rng(), augmentation=shift)]
    assert not torch.equal(*epochs)
    assert len({tuple(image.flatten().tolist()) for image in epochs[0]}) > 3  # a draw a sample


@pytest.mark.parametrize("in_every_batch", [False, True])
@pytest.mark.parametrize("augmentation", [None, Augmentation(pad=2, flip=True, degrees=15)])
@pytest.mark.parametrize("ahead", [13, 10_000])
def test_batches_that_are_prepared_together_are_those_prepared_one_by_one(
    monkeypatch, in_every_batch, augmentation, ahead
):
    """As on an accelerator; to the bit, and with the random numbers of the very same batches."""
    data = data_of(30, poisoned=[3, 7, 11])
    mixed = {"augmentation": augmentation, "in_every_batch": in_every_batch}
    usual = list(data.batches(4, 3, rng(), **mixed))
    monkeypatch.setattr(LocalData, "_ahead", ahead)
    together = list(data.batches(4, 3, rng(), **mixed))
    for (x, y), (one, label) in zip(together, usual, strict=True):
        assert torch.equal(x, one)
        assert torch.equal(y, label)
        assert x.is_contiguous(memory_format=torch.channels_last)


def test_augmentation_does_not_change_the_data():
    data = data_of(10)
    before = data.x.clone()
    list(data.batches(4, 2, rng(), augmentation=Blacken()))
    assert torch.equal(data.x, before)


@given(
    n=st.integers(2, 60),
    share=st.floats(0, 1),
    batch_size=st.integers(1, 70),
    epochs=st.integers(1, 3),
)
@settings(max_examples=150, deadline=None)
def test_batchwise_poison_is_in_every_batch_and_no_batch_is_empty(n, share, batch_size, epochs):
    """In the original, floor(p * B) = 0 makes a loader of batch size 0, and crashes."""
    bad = set(range(max(1, int(share * n))))
    data = data_of(n, bad)
    batches = [rows_of(b) for b in data.batches(batch_size, epochs, rng(), in_every_batch=True)]
    assert batches
    for rows in batches:
        assert bad & set(rows)
        assert 0 < len(rows) <= batch_size + 1
    assert len(batches) <= epochs * n


def test_batchwise_poison_keeps_the_batch_size_and_the_share_and_cycles_through_all():
    # p = 10 %, B = 20: two of every batch, 18 clean ones
    data = data_of(100, poisoned=range(10))
    batches = [rows_of(b) for b in data.batches(20, 1, rng(), in_every_batch=True)]
    assert [len(rows) for rows in batches] == [20] * 5
    assert all(sum(row < 10 for row in rows) == 2 for rows in batches)
    assert sorted(row for rows in batches for row in rows) == list(range(100))


@pytest.mark.parametrize("n", [20, 40, 64])
def test_a_client_with_less_than_a_batch_takes_every_sample_once_a_pass(n):
    # p = 25 %: a share of B = 64, which is 16, would repeat the 5 poisoned ones of 20
    data = data_of(n, poisoned=range(n // 4))
    batches = [rows_of(b) for b in data.batches(64, 3, rng(), in_every_batch=True)]
    assert [sorted(rows) for rows in batches] == [list(range(n))] * 3


def test_a_share_below_one_sample_a_batch_becomes_one():
    # the paper's 1.25 % and B = 64: 0.8 samples a batch
    data = data_of(160, poisoned=[5, 6])
    batches = [rows_of(b) for b in data.batches(64, 3, rng(), in_every_batch=True)]
    counts = [sum(row in (5, 6) for row in rows) for rows in batches]
    assert counts == [1] * len(batches)
    assert {row for rows in batches for row in rows if row in (5, 6)} == {5, 6}


def test_batchwise_poison_without_poison_is_the_usual_shuffle():
    for poisoned in ([], range(10)):
        data = data_of(10, poisoned)
        usual = [rows_of(b) for b in data.batches(4, 2, rng())]
        assert [rows_of(b) for b in data.batches(4, 2, rng(), in_every_batch=True)] == usual
