import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from entity.client.triggers import Trigger, pixel_trigger
from entity.config.schema import ConfigError

CORNERS = ["top_left", "top_right", "bottom_left", "bottom_right"]


def images(channels: int, size: int, n: int = 5) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randint(1, 200, (n, channels, size, size), generator=g, dtype=torch.uint8)


def stamped_places(trigger: Trigger, channels: int, size: int) -> set[tuple[int, int]]:
    x = images(channels, size)
    changed = (trigger.stamp(x) != x).any(dim=0).any(dim=0)
    return {(int(row), int(col)) for row, col in changed.nonzero()}


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32)])
@pytest.mark.parametrize("corner", CORNERS)
def test_the_four_pixels_sit_in_their_corner_and_nowhere_else(channels, size, corner):
    down = size - 4 if "bottom" in corner else 0
    right = size - 4 if "right" in corner else 0
    pixels = [(1, 1), (2, 2), (3, 3), (1, 3)]
    trigger = pixel_trigger("4pixel", corner, channels, size)
    assert stamped_places(trigger, channels, size) == {(r + down, c + right) for r, c in pixels}


@pytest.mark.parametrize(("channels", "size", "far"), [(1, 28, 25), (3, 32, 29)])
def test_the_single_pixel_of_the_far_corner_is_where_counted_by_hand(channels, size, far):
    trigger = pixel_trigger("1pixel", "bottom_right", channels, size)
    assert stamped_places(trigger, channels, size) == {(far, far)}


def test_the_default_colour_is_red_or_white():
    x = images(3, 32)
    assert pixel_trigger("1pixel", "top_left", 3, 32).stamp(x)[0, :, 1, 1].tolist() == [255, 0, 0]
    grey = pixel_trigger([(0, 5)], "top_left", 1, 28).stamp(images(1, 28))
    assert grey[:, 0, 0, 5].tolist() == [255] * 5


@given(
    pixels=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 9), *[st.integers(0, 255)] * 3), min_size=1
    ),
    corner=st.sampled_from(CORNERS),
)
def test_stamping_is_idempotent_and_touches_only_the_listed_pixels(pixels, corner):
    x = images(3, 10)
    before = x.clone()
    trigger = pixel_trigger(pixels, corner, 3, 10)
    once = trigger.stamp(x)
    assert torch.equal(trigger.stamp(once), once)
    assert torch.equal(x, before)
    expected = before.clone()
    for row, col, *colour in pixels:
        expected[:, :, row, col] = torch.tensor(colour, dtype=torch.uint8)
    assert torch.equal(once, expected)


def test_a_single_value_colours_every_channel():
    out = pixel_trigger([[2, 3, 7]], "bottom_right", 3, 8).stamp(images(3, 8))
    assert out[0, :, 2, 3].tolist() == [7, 7, 7]


def test_opacity_blends_and_rounds():
    mask = torch.ones(1, 1, 2, dtype=torch.bool)
    mask[0, 0, 1] = False
    trigger = Trigger(mask, torch.full((1, 1, 2), 255, dtype=torch.uint8), opacity=0.2)
    x = torch.tensor([[[[101, 101]]], [[[0, 0]]]], dtype=torch.uint8)
    # 0.8 * 101 + 51 = 131.8 and 51
    assert trigger.stamp(x).flatten().tolist() == [132, 101, 51, 0]
    assert torch.equal(Trigger(mask, trigger.values, opacity=0.0).stamp(x), x)


def save(array: np.ndarray, path: object) -> str:
    Image.fromarray(array).save(str(path))
    return str(path)


def test_an_image_with_alpha_stamps_where_it_is_not_transparent(tmp_path):
    rgba = np.zeros((8, 8, 4), dtype=np.uint8)
    rgba[2, 3] = (0, 0, 0, 255)
    rgba[4, 5] = (1, 2, 3, 1)
    rgba[6, 6] = (9, 9, 9, 0)
    trigger = pixel_trigger(save(rgba, tmp_path / "t.png"), "top_left", 3, 8)
    assert stamped_places(trigger, 3, 8) == {(2, 3), (4, 5)}
    assert trigger.stamp(images(3, 8))[0, :, 4, 5].tolist() == [1, 2, 3]


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_an_image_without_alpha_stamps_where_it_is_not_black(tmp_path, channels):
    grey = np.zeros((8, 8), dtype=np.uint8)
    grey[1, 2] = 255
    trigger = pixel_trigger(save(grey, tmp_path / "t.png"), "top_left", channels, 8)
    assert stamped_places(trigger, channels, 8) == {(1, 2)}


def test_an_image_of_16_bits_is_refused_and_not_stamped_white(tmp_path):
    """Pillow would clip 300 of 65535, which is nearly black, to 255."""
    grey = np.full((8, 8), 300, dtype=np.uint16)
    for name, array in (
        ("deep.png", grey),
        ("deep.tif", grey.astype(np.int32)),
        ("real.tif", grey.astype(np.float32)),
    ):
        with pytest.raises(ConfigError, match="more than 8 bits; make it one of 8") as said:
            pixel_trigger(save(array, tmp_path / name), "top_left", 1, 8)
        assert str(said.value).startswith("client.attack.trigger_pattern = ")


def test_bad_image_files_are_refused_in_one_sentence(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    whole = np.full((8, 8), 9, dtype=np.uint8)
    save(whole, tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:50])
    # Of no pixel format that Pillow knows; it raises NotImplementedError.
    (tmp_path / "unknown.dds").write_bytes(b"DDS " + (124).to_bytes(4, "little") + bytes(120))
    cases = {
        "none.png": "there is no such file",
        "unknown.dds": "not one that can be read",
        "text.png": "not one that can be read",
        "cut.png": "not one that can be read",
        save(np.full((9, 8), 9, dtype=np.uint8), tmp_path / "wide.png"): "this one has 8x9",
        save(whole * 0, tmp_path / "black.png"): "transparent or black",
        str(tmp_path): "not one that can be read",
    }
    for name, reason in cases.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            pixel_trigger(str(tmp_path / name), "top_left", 1, 8)
        assert str(caught.value).startswith("client.attack.trigger_pattern = ")
        assert "\n" not in str(caught.value)
        assert "8x8" in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "allowed"),
    [
        ("4pixl", "Did you mean 4pixel?"),
        ("", "1pixel, 4pixel, an image file"),
        ([], "at least one pixel"),
        ([[1]], "[row, col]"),
        ([[1, 1, 5, 5]], "[row, col]"),
        ([[1, 1, 5, 5, 5]], "1 channel"),
        ([[28, 0]], "from 0 to 27"),
        ([[0, -1]], "from 0 to 27"),
        ([[0, 0, 256]], "values from 0 to 255"),
    ],
)
def test_bad_patterns_are_refused_with_what_is_allowed(pattern, allowed):
    with pytest.raises(ConfigError) as caught:
        pixel_trigger(pattern, "top_left", 1, 28)
    assert str(caught.value).startswith("client.attack.trigger_pattern = ")
    assert allowed in str(caught.value)
