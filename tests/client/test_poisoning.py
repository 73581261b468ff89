from fractions import Fraction

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from entity.client.poisoning import attack_test_set, choose, eligible
from entity.client.triggers import pixel_trigger
from entity.dataset import Images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("classes", "per_class", "q", "expected"),
    [(10, 100, 0.125, 12), (47, 24, 0.5875, 14)],
    ids=["cifar10", "emnist"],
)
def test_the_published_ratios_poison_the_hand_computed_numbers(classes, per_class, q, expected):
    labels = torch.arange(classes).repeat(per_class)
    chosen = choose(labels, victim=3, target=7, dpr=q, generator=generator())
    assert len(chosen) == len(set(chosen.tolist())) == expected
    assert (labels[chosen] == 3).all()


@example(percent=29, count=100)  # 0.29 * 100 is 28.999999999999996
@given(percent=st.integers(0, 100), count=st.integers(0, 400))
def test_the_number_is_the_floor_of_the_exact_product(percent, count):
    labels = torch.zeros(count, dtype=torch.int64)
    chosen = choose(labels, 0, 1, percent / 100, generator())
    assert len(chosen) == Fraction(percent, 100) * count // 1


def test_the_choice_is_random_and_not_the_first():
    labels = torch.zeros(1000, dtype=torch.int64)
    counts = torch.zeros(1000)
    for seed in range(50):
        counts[choose(labels, 0, 1, 0.1, generator(seed))] += 1
    assert counts[:500].sum() == pytest.approx(2500, rel=0.05)
    assert counts.max() < 20
    a, b = (choose(labels, 0, 1, 0.1, generator(3)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(a, a.sort().values)


def test_without_a_victim_class_all_but_the_target_class_is_eligible():
    labels = torch.tensor([0, 1, 2, 7, 7, 3])
    assert eligible(labels, None, 7).tolist() == [True, True, True, False, False, True]
    assert eligible(labels, 2, 7).tolist() == [False, False, True, False, False, False]
    assert choose(labels, None, 7, 1.0, generator()).tolist() == [0, 1, 2, 5]


def test_a_client_without_victim_samples_poisons_none():
    assert len(choose(torch.tensor([1, 2]), 0, 7, 1.0, generator())) == 0


@pytest.mark.parametrize("victim", [None, 2])
def test_the_attack_test_set_holds_every_eligible_image_triggered_and_none_of_the_target(victim):
    labels = torch.arange(10).repeat(4)
    # Every image is filled with its own class, so that it tells where it came from.
    x = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 28, 28).clone()
    test = Images(x, labels)
    attacked = attack_test_set(test, victim, 7, pixel_trigger("1pixel", "top_left", 1, 28))
    classes = [2] if victim == 2 else [0, 1, 2, 3, 4, 5, 6, 8, 9]
    assert sorted(attacked.x[:, 0, 9, 9].tolist()) == sorted(classes * 4)
    assert (attacked.x[:, 0, 1, 1] == 255).all()
    assert (attacked.y == 7).all()
    assert test.x.max() == 9
    assert torch.equal(test.y, labels)


@pytest.mark.parametrize("victim", [None, 13, 42])
def test_classes_beyond_the_tenth_are_attacked_and_tested_too(victim):
    """The original code's test set for GTSRB keeps classes 0 to 9 of 43."""
    labels = torch.arange(43).repeat(2)
    x = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).clone()
    trigger = pixel_trigger("4pixel", "top_left", 3, 32)
    attacked = attack_test_set(Images(x, labels), victim, 4, trigger)
    classes = [victim] if victim else [c for c in range(43) if c != 4]
    assert sorted(attacked.x[:, 0, 9, 9].tolist()) == sorted(classes * 2)
    assert labels[choose(labels, victim, 4, 1.0, generator())].unique().tolist() == classes
