import hashlib

import pytest
import torch
import torch.multiprocessing

from entity.dataset import Images, normalise, to_pixels


def test_normalise_maps_pixels_onto_the_range_of_tanh_and_back_exactly():
    pixels = torch.arange(256, dtype=torch.uint8)
    x = normalise(pixels)
    assert x.dtype == torch.float32
    assert x[0] == -1
    assert x[-1] == 1
    assert torch.equal(to_pixels(x), pixels)


def test_to_pixels_clamps_what_is_outside():
    assert to_pixels(torch.tensor([-7.0, 7.0])).tolist() == [0, 255]


def test_subset_takes_positions_and_masks_and_copies():
    images = Images(torch.arange(4, dtype=torch.uint8).view(4, 1, 1, 1), torch.tensor([3, 2, 1, 0]))
    by_position = images.subset(torch.tensor([2, 0]))
    assert by_position.x.flatten().tolist() == [2, 0]
    assert by_position.y.tolist() == [1, 3]
    by_mask = images.subset(images.y > 1)
    assert by_mask.x.flatten().tolist() == [0, 1]
    by_mask.x.zero_().add_(9)
    assert images.x.flatten().tolist() == [0, 1, 2, 3]


def test_share_memory_moves_both_tensors_and_returns_the_same_images():
    images = Images(torch.zeros(2, 1, 2, 2, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    assert not images.x.is_shared()
    assert images.share_memory() is images
    assert images.x.is_shared()
    assert images.y.is_shared()


def numbered(n: int = 6) -> Images:
    x = torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 3, 4, 5).contiguous()
    return Images(x, torch.arange(n) * 10)


def test_a_selection_points_at_rows_of_the_larger_set():
    images = numbered()
    chosen = images.select(torch.tensor([4, 1, 3]))
    assert len(chosen) == 3
    assert chosen.shape == images.shape == (3, 4, 5)
    assert chosen.y.tolist() == [40, 10, 30]
    assert chosen.x[:, 0, 0, 0].tolist() == [4, 1, 3]
    assert chosen.images is images


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_a_part_of_a_selection_is_a_copy_of_the_right_rows(index):
    images = numbered()
    part = images.select(torch.tensor([4, 1, 3])).subset(index)
    assert sorted(part.x[:, 0, 0, 0].tolist()) == [3, 4]
    assert part.y.tolist() == [10 * row for row in part.x[:, 0, 0, 0].tolist()]
    part.x.zero_()
    assert images.x[:, 0, 0, 0].tolist() == list(range(6))


def test_sharing_a_selection_shares_all_of_it():
    chosen = numbered().select(torch.tensor([4, 1]))
    assert chosen.share_memory() is chosen
    for tensor in (chosen.images.x, chosen.images.y, chosen.rows, chosen.y):
        assert tensor.is_shared()


def test_the_hash_is_that_of_the_bytes_in_order():
    images = numbered(2500)
    expected = hashlib.sha256(images.x.numpy().tobytes()).hexdigest()
    assert images.sha256() == images.known_sha256() == expected
