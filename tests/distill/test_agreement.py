import math

import pytest
import torch
from torch import nn

from entity.distill.agreement import Plateau, agreement, comparison
from entity.distill.ensemble import Ensemble


class Answers(nn.Module):
    """Gives the same logits whatever it is asked."""

    def __init__(self, rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, x):
        return self.rows


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


X = torch.zeros(4, 1, 2, 2)
TEACHERS = [[2.0, 1.0], [0.0, 1.0], [5.0, 4.0], [-1.0, -2.0]]  # classes 0, 1, 0, 0


@pytest.mark.parametrize(
    ("own", "share"),
    [
        (TEACHERS, 1.0),
        ([[9.0, 0.0], [0.1, 0.0], [1.0, 0.0], [0.0, 1.0]], 0.5),  # classes 0, 0, 0, 1
        ([[b, a] for a, b in TEACHERS], 0.0),
        ([[math.nan, 0.0], [0.0, 1.0], [math.inf, 0.0], [1.0, 0.0]], 0.5),
    ],
)
def test_it_is_the_share_of_images_put_into_the_same_class(own, share):
    assert agreement(Answers(own), Answers(TEACHERS), X) == share


def test_on_no_image_nobody_agrees():
    assert math.isnan(agreement(Answers(TEACHERS), Answers(TEACHERS), X[:0]))


def looks(*values):
    """A measure that gives these values one after another, and counts."""
    left = list(values)
    return lambda: left.pop(0), left


@pytest.mark.parametrize(
    ("values", "cycles"),
    [
        ((0.90, 0.905), 1),  # nothing to gain from the start
        ((0.1, 0.6, 0.8, 0.81), 3),
        ((0.9, 0.5, 0.8, 0.79), 3),  # a fall is mended first
        ((0.1, 0.4, 0.7, 0.95), None),
        ((0.1, 0.11, 0.7, 0.71), 3),  # a student that has learnt nothing yet is not done
        ((0.48, 0.49, 0.5), 2),
    ],
)
def test_a_plateau_is_a_cycle_that_changed_nothing(values, cycles):
    measure, left = looks(*values)
    plateau = Plateau(0.02, [4, 8, 12], measure)
    end = next((i for i in range(1, 13) if plateau.reached(i)), None)
    assert end == (None if cycles is None else 4 * cycles)
    assert left == []
    assert plateau.agreement == values[-1]


def test_without_a_limit_nothing_is_measured():
    measure, left = looks(0.5)
    plateau = Plateau(None, range(1, 5), measure)
    assert not any(plateau.reached(i) for i in range(1, 5))
    assert left == [0.5]
    assert math.isnan(plateau.agreement)


def test_held_out_images_go_first_and_cost_no_random_number():
    stream = rng()
    state = stream.get_state()
    student = Answers([[1.0, 0.0]] * 4)
    teachers = Ensemble([Answers(TEACHERS)])
    measure = comparison(student, teachers, X, lambda _: pytest.fail("generated"), stream)
    assert measure() == agreement(student, teachers, X) == 0.75
    assert torch.equal(stream.get_state(), state)


def test_teachers_answer_held_out_images_once_until_one_of_them_is_left_out():
    right, wrong = Answers(TEACHERS), Answers([[9 * b, 9 * a] for a, b in TEACHERS])
    teachers = Ensemble([right, wrong])
    measure = comparison(Answers(TEACHERS), teachers, X, lambda _: pytest.fail("generated"), rng())
    assert [measure(), measure()] == [0.0, 0.0]  # the louder one is heard
    assert teachers.forwards == 2 * len(X)
    teachers.members = [right]
    assert [measure(), measure()] == [1.0, 1.0]
    assert teachers.forwards == 3 * len(X)


@pytest.mark.parametrize("held_out", [None, X[:0]])
def test_else_images_come_from_the_same_noise_at_every_look(held_out):
    seen: list[torch.Tensor] = []

    def sample(noise):
        seen.append(torch.randn(4, generator=noise))
        return X

    for seed in (0, 1):
        measure = comparison(
            Answers(TEACHERS), Ensemble([Answers(TEACHERS)]), held_out, sample, rng(seed)
        )
        assert [measure(), measure()] == [1.0, 1.0]
    first, again, other, _ = seen
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
