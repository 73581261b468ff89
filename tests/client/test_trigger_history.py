import pytest
import torch
from torch import Tensor

from entity.client.trigger_history import ANY, TriggerHistory, choose_pair, grown
from entity.client.trigger_inversion import Triggers

NOTHING = -torch.inf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def table(rows: list[list[float]]) -> Tensor:
    growth = torch.tensor(rows)
    return growth.fill_diagonal_(NOTHING)


GROWTH = table([[0, 0.9, 0.1], [0.2, 0, 0.3], [0.5, 0.4, 0]])


@pytest.mark.parametrize(
    ("present", "previous", "expected"),
    [
        ([0, 1, 2], ANY, (0, 1)),
        ([0, 1, 2], 0, (2, 0)),
        ([1, 2], ANY, (2, 0)),
        ([0, 1], 0, (1, 2)),
        ([0], 0, None),
        ([], ANY, None),
    ],
)
def test_the_pair_is_the_one_that_grew_most_of_a_present_source_other_than_the_last(
    present, previous, expected
):
    assert choose_pair(GROWTH, present, previous, 0.0, generator()) == expected


def test_equal_growth_goes_to_the_lowest_pair_and_unknown_growth_to_none():
    assert choose_pair(table([[1.0] * 3] * 3), [1, 2], ANY, 0.0, generator()) == (1, 0)
    assert choose_pair(table([[NOTHING] * 3] * 3), [1, 2], ANY, 0.0, generator()) is None


def test_three_in_ten_pairs_are_drawn_uniformly():
    rng = generator()
    drawn = [choose_pair(GROWTH, [0, 1, 2], ANY, 0.3, rng) for _ in range(3000)]
    others = [pair for pair in drawn if pair != (0, 1)]
    # Of the random ones, a sixth are (0, 1), too.
    assert len(others) / 3000 == pytest.approx(0.3 * 5 / 6, abs=0.03)
    for pair in set(others):
        assert others.count(pair) / len(others) == pytest.approx(0.2, abs=0.05)
    assert all(source != target for source, target in drawn)
    assert choose_pair(GROWTH, [2], 2, 1.0, rng) in [(2, 0), (2, 1)]


def test_growth_averages_the_relative_changes_of_a_hand_made_history():
    assert grown(NOTHING, 0.0, 20.0) == 0.0
    first = grown(0.0, 20.0, 30.0)
    assert first == pytest.approx(0.25)
    assert grown(first, 30.0, 15.0) == pytest.approx((0.25 - 0.5) / 2)


def test_the_warm_up_ranks_pairs_by_size_with_the_largest_at_one():
    history = TriggerHistory.blank(3)
    history.sizes = torch.tensor([[0.0, 10, 40], [20, 0, 40], [20, 10, 0]])
    history.finish_warm_up()
    assert history.growth.tolist() == [
        [NOTHING, 0.25, 1.0],
        [0.5, NOTHING, 1.0],
        [0.5, 0.25, NOTHING],
    ]


def test_a_warm_up_that_found_nothing_leaves_no_nan():
    history = TriggerHistory.blank(3)
    history.finish_warm_up()
    assert not history.growth.isnan().any()
    assert choose_pair(history.growth, [0, 1], ANY, 0.0, generator()) == (0, 1)


def test_a_pair_without_a_usable_trigger_is_not_the_first_choice_for_ever():
    """In the published code it keeps its growth, and so its place."""
    history = TriggerHistory.blank(3)
    history.sizes, history.growth = torch.full((3, 3), 9.0), GROWTH.clone()
    chosen = set()
    for _ in range(8):
        pair = choose_pair(history.growth, [0, 1, 2], ANY, 0.0, generator())
        assert pair is not None
        chosen.add(pair)
        history.add(pair, None)
    assert len(chosen) >= 4
    assert (history.sizes == 9).all()


def test_pairs_whose_triggers_shrink_take_turns_where_none_can_be_used():
    """Half of a negative growth would be more: two pairs were chosen for ever."""
    history = TriggerHistory.blank(3)
    history.growth = table([[0, -0.1, -0.3], [-0.2, 0, -0.25], [-0.15, -0.4, 0]])
    chosen, previous = [], ANY
    for _ in range(24):
        pair = choose_pair(history.growth, [0, 1, 2], previous, 0.0, generator())
        assert pair is not None
        chosen.append(pair)
        before = float(history.growth[pair])
        history.add(pair, None)
        assert float(history.growth[pair]) < before
        previous = pair[0]
    assert len(set(chosen)) == 6
    assert max(chosen.count(pair) for pair in set(chosen)) <= 8


def test_a_thousand_failures_leave_a_pair_that_can_be_chosen():
    history = TriggerHistory.blank(2)
    history.growth = table([[0, 0.5], [0.5, 0]])
    for _ in range(1000):
        history.add((0, 1), None)
    assert choose_pair(history.growth, [0], ANY, 0.0, generator()) == (0, 1)


def test_booking_a_trigger_counts_pixels_and_not_channels():
    """The published code counts a grey mask three times after the warm-up and once in it."""
    history = TriggerHistory.blank(3)
    history.sizes, history.growth = torch.full((3, 3), 4.0), GROWTH.clone()
    history.add((0, 1), Triggers(torch.full((1, 1, 2, 4), 0.5), torch.zeros(1, 3, 2, 4)))
    assert history.sizes[0, 1] == 4
    assert history.growth[0, 1] == pytest.approx(0.45)
