import os
import zipfile
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from entity.client.poison import NoPoisonArgs, Poison
from entity.client.triggers import pixel_trigger
from entity.config.fields import AttackConfig
from entity.config.schema import ConfigError
from entity.dataset import Images
from entity.poisons.blended import Blended, BlendedArgs
from entity.poisons.dba import Dba, DbaArgs, bars
from entity.poisons.edge_case import EdgeCase, EdgeCaseArgs, read_images
from entity.poisons.label_flip import LabelFlip

ARGS: dict[type[Poison], Any] = {
    Blended: BlendedArgs,
    Dba: DbaArgs,
    LabelFlip: NoPoisonArgs,
}


def make(
    poison: type[Poison], channels: int = 1, size: int = 28, args: Any = None, **fields: Any
) -> Poison:
    settings = {"target_class": 2, "victim_class": 1} | fields
    return poison(AttackConfig(type="t", **settings), args or ARGS[poison](), channels, size)


def images(channels: int = 1, size: int = 28, n: int = 12) -> Images:
    rng = torch.Generator().manual_seed(0)
    x = torch.randint(1, 200, (n, channels, size, size), generator=rng, dtype=torch.uint8)
    return Images(x, torch.arange(n) % 4)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(before: torch.Tensor, after: torch.Tensor) -> set[tuple[int, int]]:
    """(row, column) of what differs."""
    return {(int(r), int(c)) for r, c in (before != after).any(0).any(0).nonzero()}


CIFAR_BARS = [{(row, col + i) for i in range(6)} for row, col in [(0, 0), (0, 9), (4, 0), (4, 9)]]
MNIST_BARS = [{(row, col + i) for i in range(4)} for row, col in [(0, 0), (0, 6), (3, 0), (3, 6)]]


@pytest.mark.parametrize(
    ("channels", "size", "expected"), [(3, 32, CIFAR_BARS), (1, 28, MNIST_BARS)]
)
def test_dba_stamps_the_paper_s_bars_one_an_attacker(channels, size, expected):
    poison, clean = make(Dba, channels, size), images(channels, size)
    for rank in range(9):
        bad = poison.poison(clean, rank, rng())
        assert places(clean.x, bad.x) == expected[rank % 4]
        assert (bad.x[:, :, 0, 0] == 255).all() == (rank % 4 == 0)
        assert bad.y.tolist() == [2] * len(clean)


@pytest.mark.parametrize("size", [4, 8, 28, 32, 64, 96])
@pytest.mark.parametrize("corner", ["top_left", "top_right", "bottom_left", "bottom_right"])
@pytest.mark.parametrize("parts", [1, 3, 4])
def test_dba_s_local_patterns_are_disjoint_and_their_union_is_the_tested_trigger(
    size, corner, parts
):
    poison = make(Dba, 1, size, DbaArgs(dba_parts=parts), trigger_position=corner)
    clean = images(1, size)
    local = [places(clean.x, poison.poison(clean, rank, rng()).x) for rank in range(parts)]
    victims = clean.subset(clean.y == 1)
    union = places(victims.x, poison.test_set(clean).x)
    assert set.union(*local) == union
    assert sum(len(part) for part in local) == len(union)
    rows, cols = zip(*union, strict=True)
    assert (min(rows) == 0) if "top" in corner else (max(rows) == size - 1)
    assert (min(cols) == 0) if "left" in corner else (max(cols) == size - 1)


def test_dba_bars_scale_with_the_image():
    assert [len(bars(1, size, "top_left")[1]) for size in (4, 16, 96)] == [4, 12, 72]


def test_dba_bars_need_room():
    for size in (1, 2):
        with pytest.raises(ConfigError, match=f"not fit on images of {size}x{size} pixels; use"):
            bars(1, size, "bottom_right")
    assert bars(1, 3, "bottom_right")[1].amax() == 2


def test_dba_bars_of_tiny_imagenet_are_two_rows_high():
    pixels = bars(3, 64, "top_left")[1].view(4, 20, 2)
    corners = [(0, 0), (0, 12), (4, 0), (4, 12)]  # of the authors' tiny_params.yaml
    for bar, (top, left) in zip(pixels, corners, strict=True):
        expected = {(top + row, left + col) for row in range(2) for col in range(10)}
        assert {tuple(pixel) for pixel in bar.tolist()} == expected
    far = bars(3, 64, "bottom_right")[1]
    assert far.max(0).values.tolist() == [63, 63]
    assert far.min(0).values.tolist() == [58, 42]


def test_dba_splits_the_configured_pattern():
    args = DbaArgs(dba_trigger="pattern")
    poison, clean = make(Dba, 3, 32, args, trigger_pattern="4pixel"), images(3, 32)
    assert [places(clean.x, poison.poison(clean, r, rng()).x) for r in range(4)] == [
        {(1, 1)},
        {(1, 3)},
        {(2, 2)},
        {(3, 3)},
    ]
    whole = poison.test_set(clean)
    assert whole.x[0, :, 2, 2].tolist() == [255, 0, 0]
    assert len(places(clean.x[clean.y == 1], whole.x)) == 4


def test_dba_refuses_more_parts_than_pixels():
    with pytest.raises(ConfigError, match=r"client\.attack\.dba_parts = 5.*only 4 pixel"):
        make(Dba, 3, 32, DbaArgs(dba_parts=5, dba_trigger="pattern"))


@pytest.mark.parametrize("opacity", [0.0, 0.1, 0.2, 1.0])
def test_blended_moves_every_pixel_by_its_share_of_the_way_to_the_pattern(opacity):
    poison, clean = make(Blended, 3, 32, BlendedArgs(blend_opacity=opacity)), images(3, 32)
    pattern = make(Blended, 3, 32, BlendedArgs(blend_opacity=1.0)).poison(clean, 0, rng()).x
    assert (pattern == pattern[0]).all()
    bad = poison.poison(clean, 3, rng()).x.numpy()
    mixed = (1 - opacity) * clean.x.numpy().astype(float) + opacity * pattern.numpy()
    assert np.abs(bad - mixed).max() <= 0.5 + 1e-4
    assert np.abs(bad - clean.x.numpy().astype(float)).max() <= 255 * opacity + 0.5


def test_blended_noise_is_uniform_and_the_same_in_every_experiment():
    a, b = (make(Blended, 3, 32).trigger.values for _ in range(2))
    assert torch.equal(a, b)
    assert a.float().mean() == pytest.approx(127.5, abs=6)
    assert a.min() == 0
    assert a.max() == 255


def test_blended_takes_a_picture_as_trigger_pattern(tmp_path):
    file = tmp_path / "picture.png"
    Image.fromarray(np.full((28, 28), 100, dtype=np.uint8)).save(file)
    args = BlendedArgs(blend_with="pattern", blend_opacity=0.5)
    poison = make(Blended, args=args, trigger_pattern=str(file))
    clean = images()
    assert torch.equal(
        poison.poison(clean, 0, rng()).x, ((clean.x.float() + 100) / 2).round().to(torch.uint8)
    )
    with pytest.raises(ConfigError, match=r"client\.attack\.trigger_pattern"):
        make(Blended, args=args, trigger_pattern=str(tmp_path / "none.png"))


def test_label_flip_changes_the_label_and_not_a_pixel():
    poison, clean = make(LabelFlip), images()
    chosen = clean.subset(poison.choose(clean.y, rng()))
    bad = poison.poison(chosen, 0, rng())
    assert torch.equal(bad.x, chosen.x)
    assert chosen.y.tolist() == [1]  # DPR 0.5 of three
    assert bad.y.tolist() == [2]


@pytest.mark.parametrize("poison", [Blended, Dba, LabelFlip])
@pytest.mark.parametrize(("victim", "expected"), [(1, 3), (None, 9)])
def test_the_test_set_holds_every_eligible_image_and_none_of_the_target(poison, victim, expected):
    test = images()
    test.x[:, 0, 20, 20] = test.y.to(torch.uint8)  # where no bar is, so that it tells the class
    before = test.x.clone()
    attacked = make(poison, victim_class=victim).test_set(test)
    assert attacked.y.tolist() == [2] * expected
    assert torch.equal(test.x, before)
    if poison is not Blended:
        assert 2 not in attacked.x[:, 0, 20, 20].tolist()
    if poison is LabelFlip:
        eligible = test.y == 1 if victim else test.y != 2
        assert torch.equal(attacked.x, test.x[eligible])


def edge(path: object, channels: int = 1, size: int = 28) -> EdgeCase:
    attack = AttackConfig(type="t", target_class=2, victim_class=1)
    return EdgeCase(attack, EdgeCaseArgs(str(path)), channels, size)


def numbered(n: int, channels: int = 1, size: int = 28) -> np.ndarray:
    """Images (n, size, size, channels) filled with their own number."""
    return np.broadcast_to(
        np.arange(n, dtype=np.uint8).reshape(-1, 1, 1, 1), (n, size, size, channels)
    ).copy()


def write(kind: str, x: np.ndarray, folder: Any) -> Any:
    """Save images (n, H, W, C) in one of the forms that are read."""
    if kind == "folder":
        for i, picture in enumerate(x):
            Image.fromarray(picture.squeeze()).save(folder / f"{i:03}.png")
        (folder / ".hidden").write_text("not an image")
        return folder
    path = folder / f"edge.{kind[:3].rstrip('-')}"
    ordered = x.transpose(0, 3, 1, 2) if kind.endswith("-chw") else x
    if kind.startswith("pt"):
        torch.save(torch.from_numpy(ordered.copy()), path)
    else:
        np.savez(path, images=ordered)
    return path


@pytest.mark.parametrize("kind", ["folder", "pt", "pt-chw", "npz", "npz-chw"])
@pytest.mark.parametrize("channels", [1, 3])
def test_edge_cases_are_halved_between_training_and_test(tmp_path, kind, channels):
    poison = edge(write(kind, numbered(9, channels), tmp_path), channels)
    train = set(poison.train[:, 0, 0, 0].tolist())
    test = set(poison.test_set(images(channels)).x[:, 0, 0, 0].tolist())
    assert (len(train), len(test)) == (5, 4)
    assert train | test == set(range(9))
    assert train != set(range(5))
    assert poison.test_set(images(channels)).y.tolist() == [2] * 4


@pytest.mark.parametrize("count", [0, 3, 5, 13])
def test_chosen_samples_are_replaced_by_training_edge_cases_spread_evenly(tmp_path, count):
    poison = edge(write("npz", numbered(10), tmp_path))
    bad = poison.poison(images(n=count), 0, rng(1))
    assert bad.x.shape == (count, 1, 28, 28)
    assert bad.x.dtype == torch.uint8
    assert bad.y.tolist() == [2] * count
    drawn = bad.x[:, 0, 0, 0].tolist()
    train = poison.train[:, 0, 0, 0].tolist()
    assert set(drawn) <= set(train)
    uses = [drawn.count(number) for number in train]
    assert max(uses) - min(uses) <= 1
    assert torch.equal(bad.x, poison.poison(images(n=count), 0, rng(1)).x)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.npz", None, "no such file"),
        ("none.txt", None, "no such"),
        ("text.npz", b"no array", "cannot be read"),
        ("text.pt", b"no tensor", "cannot be read"),
        ("list.pt", [1, 2], "list"),
        ("float.npz", np.zeros((4, 28, 28, 1)), "float64"),
        ("flat.npz", np.zeros((4, 784), np.uint8), "4, 784"),
        ("wide.npz", np.zeros((4, 28, 32, 1), np.uint8), "4, 28, 32, 1"),
        ("one.npz", np.zeros((1, 28, 28, 1), np.uint8), "two or more"),
        ("words.npz", np.array(["a", "b"]), "cannot be read"),
        ("objects.npz", np.array([{}, {}], dtype=object), "cannot be read"),
    ],
)
def test_bad_edge_case_files_are_refused_in_one_sentence(tmp_path, name, content, reason):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        np.savez(path, content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ConfigError) as caught:
        edge(path)
    assert str(caught.value).startswith("client.attack.edge_case_path = ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save(Trap(), tmp_path / "trap.pt")
    with pytest.raises(ConfigError, match="cannot be read"):
        edge(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()


def test_edge_case_images_of_16_bits_are_refused(tmp_path):
    write("folder", numbered(2), tmp_path)
    Image.fromarray(np.full((28, 28), 300, dtype=np.uint16)).save(tmp_path / "001.png")
    with pytest.raises(ConfigError, match="pixels of more than 8 bits"):
        edge(tmp_path)


def test_bad_folders_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match="two or more"):
        edge(tmp_path)
    write("folder", numbered(2, size=32), tmp_path)
    with pytest.raises(ConfigError, match=r"000\.png has 32x32; resize it"):
        edge(tmp_path)
    (tmp_path / "000.png").write_text("text")
    with pytest.raises(ConfigError, match="cannot be read"):
        edge(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", ["pipe", "bomb", "lie", "folder of a pipe", "dangling"])
def test_edge_cases_that_hang_or_do_not_fit_the_memory_are_refused(tmp_path, kind):
    path = tmp_path / "images.npz"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "bomb":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("x.npy", "w") as x:
            for _ in range(1025):
                x.write(bytes(1 << 20))
    elif kind == "lie":
        header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000000000, 3, 8, 8), }\n"
        data = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x.npy", data)
    else:
        path.mkdir()
        os.mkfifo(path / "a.png") if "pipe" in kind else (path / "a.png").symlink_to("gone")
    with pytest.raises(ConfigError, match="edge_case_path"):
        read_images(path, 3, 8)


@pytest.mark.timeout(60)
def test_a_trigger_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "trigger.png")
    with pytest.raises(ConfigError, match="not one that can be read"):
        pixel_trigger(str(tmp_path / "trigger.png"), "top_left", 3, 8)
