import pytest
import torch

from entity.config.fields import AttackConfig
from entity.dataset import Images
from entity.poisons.own_trigger import OwnTrigger, OwnTriggerArgs, places


def _poison(number: int, size: int = 12) -> OwnTrigger:
    attack = AttackConfig("badnets", target_class=7, victim_class=0)
    return OwnTrigger(attack, OwnTriggerArgs(own_triggers=number), 1, size)


@pytest.mark.parametrize(
    ("size", "number", "wanted"),
    [
        (28, 1, [(0, 0)]),
        (28, 4, [(0, 0), (0, 23), (23, 23), (23, 0)]),
        (13, 8, [(0, 0), (0, 4), (0, 8), (4, 8), (8, 8), (8, 4), (8, 0), (4, 0)]),
        (5, 3, [(0, 0)] * 3),
    ],
)
def test_places_go_round_the_border(size, number, wanted):
    assert places(size, number) == wanted


def test_every_rank_has_its_own_trigger_and_the_test_takes_them_in_turn():
    poison = _poison(2)
    assert poison.divided_among == 2  # with fewer attackers a run warns
    black = torch.zeros(5, 1, 12, 12, dtype=torch.uint8)
    chosen = Images(black, torch.zeros(5, dtype=torch.int64))
    rng = torch.Generator()
    first, second, third = (poison.poison(chosen, rank, rng) for rank in range(3))
    assert first.x[0].nonzero()[:, 1:].tolist() == [[1, 1], [1, 3], [2, 2], [3, 3]]
    assert second.x[0].nonzero()[:, 1:].tolist() == [[8, 8], [8, 10], [9, 9], [10, 10]]
    assert torch.equal(third.x, first.x)
    assert first.y.tolist() == [7] * 5
    test = poison.test_set(Images(black, torch.tensor([0, 0, 7, 0, 1])))
    assert test.y.tolist() == [7] * 3
    wanted = torch.stack([first.x[0], second.x[0], first.x[0]])
    assert torch.equal(test.x, wanted)
    assert not black.any()
