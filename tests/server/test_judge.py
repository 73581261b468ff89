"""Which of two groups pushes, from how many rounds, and how long that stands."""

import pytest
import torch
from colluders import SEEDS, a_round, looked, looking

from entity.server.coalition import Groups
from entity.server.judge import Judge
from entity.server.sketches import Described, descriptions

NONE = frozenset()


@pytest.fixture
def looked_at():
    return looked()


def groups(few, size):
    return Groups(frozenset(few), frozenset(range(size)) - frozenset(few), 1.0, 9.0)


def hidden(common, share, few=(0, 1), size=5):
    """Return a round's updates: products within the few and within the others, hidden shares."""
    others = sorted(set(range(size)) - set(few))
    products, shares = torch.full((size, size), 0.05, dtype=torch.float64), torch.ones(size)
    for group, product, part in zip((sorted(few), others), common, share, strict=True):
        products[torch.tensor(group)[:, None], group] = product
        shares[group] = part
    products.fill_diagonal_(1.0)
    nothing = torch.zeros(size, 1)
    return Described(nothing, nothing, products, 1 / shares.double())


def judged(*rounds, few=(0, 1), size=5, keep=4):
    judge = Judge(keep, 1.3)
    for each in rounds:
        judge.observe(range(size), each)
    return judge.coalition(groups(few, size))


# Of the clients 0 and 1, and of the others: products of their hidden parts, and hidden shares.
@pytest.mark.parametrize(
    ("common", "share", "size", "expected"),
    [
        ((0.5, 0.1), (0.3, 0.3), 5, {0, 1}),  # they push
        ((0.131, 0.1), (0.3, 0.3), 5, {0, 1}),  # 1.3 times as much
        ((0.129, 0.1), (0.3, 0.3), 5, NONE),  # the others may be a majority of attackers
        ((0.1, 0.5), (0.3, 0.3), 5, NONE),
        ((0.1, 0.17), (0.2, 0.3), 5, {0, 1}),  # they hide 2/3, so that 4/9 of 1.3 is enough
        ((0.1, 0.18), (0.2, 0.3), 5, NONE),
        ((0.12, 0.1), (0.5, 0.3), 5, NONE),  # who hides more gains and loses nothing by it
        ((0.0, 0.1), (0.6, 0.3), 5, {0, 1}),  # but twice as much is noise to cover something
        ((0.0, 0.1), (0.59, 0.3), 5, NONE),
        ((0.01, 0.5), (0.1, 0.3), 5, NONE),  # of the larger group it would be no more than a doubt
        ((0.0, -0.1), (0.3, 0.3), 5, NONE),  # nothing is not more than nothing
        ((0.0, 0.0), (0.0, 0.0), 5, NONE),
        ((0.5, 0.1), (0.3, 0.3), 4, {0, 1}),  # of one size: those who push
        ((0.1, 0.11), (0.3, 0.3), 4, {2, 3}),
        ((0.1, 0.11), (0.2, 0.3), 4, {2, 3}),
        ((0.1, 0.5), (0.6, 0.3), 4, {0, 1}),  # or those who hide twice as much
        ((0.5, 0.1), (0.3, 0.6), 4, {2, 3}),
        ((0.1, 0.1), (0.3, 0.3), 4, {0, 1}),  # in a tie those who are more alike (`two_groups`)
    ],
)
def test_what_they_hide_decides_between_groups(common, share, size, expected):
    assert judged(hidden(common, share, size=size), size=size) == expected


def test_the_last_rounds_count_alike_by_the_geometric_mean_of_their_ratios():
    even = [hidden(((1 + k) * each, each), (1, 1)) for k, each in ((1, 0.2), (1, 0.1), (-0.5, 0.4))]
    assert judged(*even) == NONE  # (2 * 2 * 0.5) ** (1 / 3) = 1.26
    assert judged(*even[:2]) == {0, 1}
    assert judged(*even, even[0]) == {0, 1}  # 1.41
    assert judged(*even, even[2], even[2], keep=2) == NONE
    assert judged(even[2], *even[:2], keep=2) == {0, 1}


def test_a_round_to_which_only_one_of_a_group_came_says_nothing():
    judge, against = Judge(4, 1.3), hidden((0.1, 0.5), (1, 1))
    two = [0, 4]
    here = Described(
        against.hidden[two], against.shown[two], against.products[two][:, two], against.squares[two]
    )
    judge.observe(two, here)
    assert judge.coalition(groups({0, 1}, 5)) == NONE  # only their size is known
    sure = Judge(4, 0.0)  # an operator says that attackers are fewer
    sure.observe(two, here)
    assert sure.coalition(groups({0, 1}, 5)) == {0, 1}
    assert judge.found == sure.found == []  # which is no finding
    judge.observe(range(5), against)
    assert judge.coalition(groups({0, 1}, 5)) == NONE


def test_what_was_found_once_holds_in_both_parts_and_after_a_stop_until_a_pardon():
    found, again = Judge(2, 1.3), Judge(2, 1.3)
    found.observe(range(8), hidden((0.5, 0.1), (1, 1), few=(0, 1, 2), size=8))
    assert found.coalition(groups({0, 1, 2}, 8)) == {0, 1, 2}
    again.load_state_dict(found.state_dict())
    for judge in (found, again):
        for _ in range(2):  # the contrary, as they have been left out
            judge.observe(range(8), hidden((0.1, 0.5), (1, 1), few=(0, 1, 2), size=8))
        for few in ({0, 1, 2}, {1, 2}, {0, 1, 2, 7}):
            assert judge.coalition(groups(few, 8)) == few
        assert judge.coalition(groups({3, 4}, 8)) == {3, 4}  # others are judged anew
        for client in (0, 1):
            judge.pardon(client)
            assert all(client not in each["clients"] for each in judge.state_dict()["last"])
        judge.observe(range(8), hidden((0.1, 0.5), (1, 1), few=(0, 1, 2), size=8))
        assert judge.coalition(groups({0, 1, 2}, 8)) == NONE
    assert str(again.state_dict()) == str(found.state_dict())


def test_who_has_gone_makes_no_group_larger():
    """Four attackers of ten come back under other names, beside the sums of the old ones."""
    judge, old, new = Judge(2, 1.3), {0, 1, 2, 3}, {10, 11, 12, 13}
    honest = frozenset({4, 5, 6, 7, 8, 9})
    among = hidden((0.5, 0.1), (1, 1), few=(0, 1, 2, 3), size=10)
    for attackers in (old, new, new):
        judge.observe([*sorted(attackers), *sorted(honest)], among)
    # All who ever came are eight against six; of those who came lately it is four.
    apart = Groups(honest, frozenset(old | new), 1.0, 9.0)
    assert judge.coalition(apart) == old | new
    gone = Groups(honest, frozenset(old), 1.0, 9.0)
    assert judge.standing(gone) == judge.coalition(gone) == old
    assert judge.standing(Groups(NONE, NONE, 1.0, 9.0)) == NONE


def test_groups_that_were_found_do_not_take_the_place_of_others():
    judge = Judge(2, 1.3)
    one, two = (hidden((0.5, 0.1), (1, 1), few=few, size=9) for few in [(0, 1), (2, 3)])
    for few, each in [({0, 1}, one), ({2, 3}, two)]:
        for _ in range(2):
            judge.observe(range(9), each)
        assert judge.coalition(groups(few, 9)) == few
    assert judge.coalition(groups({0, 1}, 9)) == {0, 1}  # though it has not more by now
    judge.found.clear()
    assert judge.coalition(groups({0, 1}, 9)) == NONE


def test_half_of_the_clients_are_found_by_what_they_push_where_no_clean_image_looks(looked_at):
    """Also where the others are the more alike: four attackers frame a fifth client."""
    spec, of = looked_at
    for pushers in [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]:
        (history, look), judge = looking(enough=0.2), Judge(4, 1.3)
        for number in range(30):
            updates = a_round(spec, number, colluders=pushers)
            described = descriptions(updates, of, SEEDS)
            history.observe(range(10), described.hidden, torch.ones(10))
            found = look.groups()
            judge.observe(range(10), described)
            if number >= 3:
                assert look.clear(found)
                assert judge.coalition(found) == {*pushers}


def test_updates_of_zeros_say_nothing():
    nothing = Described(*(torch.zeros(5, 1),) * 2, torch.zeros(5, 5).double(), torch.zeros(5))
    assert judged(nothing) == NONE
