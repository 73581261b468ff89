"""Which of two groups pushes, and how long that stands."""

import pytest
import torch
from colluders import SEEDS, a_round, looked

from entity.server.coalition import Coalition, two_groups
from entity.server.judge import Judge
from entity.server.sketches import Described, descriptions


@pytest.fixture
def looked_at():
    return looked()


# Of the clients 0 and 1, and of the others: products of their hidden parts, and hidden shares.
@pytest.mark.parametrize(
    ("few", "many", "size", "expected"),
    [
        ((0.5, 0.3), (0.1, 0.3), 5, {0, 1}),  # they push
        ((0.1, 0.3), (0.12, 0.3), 5, {0, 1}),  # nobody pushes much more than the others
        ((0.1, 0.3), (0.5, 0.3), 5, set()),  # the others do, and may be a majority of attackers
        ((0.1, 0.16), (0.5, 0.3), 5, set()),
        ((0.1, 0.14), (0.5, 0.3), 5, {0, 1}),  # the others do, and these hide next to nothing
        ((0.5, 0.3), (0.1, 0.3), 4, {0, 1}),
        ((0.1, 0.3), (0.11, 0.3), 4, {2, 3}),  # of one size: those who push
        ((0.0, 0.0), (0.0, 0.0), 5, {0, 1}),
    ],
)
def test_who_pushes_where_no_clean_image_looks_decides_between_groups(few, many, size, expected):
    judge = Judge()
    rows = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * (size - 2))
    groups = two_groups(dict(enumerate(rows)))
    products = torch.full((size, size), 0.05, dtype=torch.float64)
    products[:2, :2], products[2:, 2:] = few[0], many[0]
    products.fill_diagonal_(1.0)
    squares = 1 / torch.tensor([few[1]] * 2 + [many[1]] * (size - 2)).clamp_min(1e-9)
    described = Described(rows, rows, products, squares)
    assert judge.coalition("hidden", groups, range(size), described) == expected
    for theirs in (0.0, 0.1, 5.0):  # which of two groups pushes is judged once
        products[2:, 2:] = theirs
        products.fill_diagonal_(1.0)
        if size > 4:
            assert judge.coalition("hidden", groups, range(size), described) == expected
    two = [0, size - 1]  # of each group only one is there: nothing but the size is known
    here = Described(rows[two], rows[two], products[two][:, two], squares[two])
    assert len(Judge().coalition("hidden", groups, two, here)) == 2
    if size > 4:  # or how it was judged before
        assert judge.coalition("hidden", groups, two, here) == expected


def test_half_of_the_clients_are_found_by_what_they_push_where_no_clean_image_looks(looked_at):
    """Also where the others are the more alike: four attackers frame a fifth client."""
    spec, of = looked_at
    for pushers in [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]:
        history, judge = Coalition(enough=0.2, patience=4, memory=0.95), Judge()
        for number in range(30):
            updates = a_round(spec, number, colluders=pushers)
            described = descriptions(updates, of, SEEDS)
            groups = history.observe(range(10), described.hidden)
            if number >= 3:
                assert history.clear(groups)
                found = judge.coalition("hidden", groups, range(10), described)
                assert found == {*pushers}


@pytest.mark.parametrize("majority", [True, False])
def test_what_was_found_in_one_part_holds_in_the_other_and_after_a_stop(majority):
    """Of eight clients three; in the other part one client changes sides."""
    found = Judge()

    def judged(judge, part, small, common, theirs):
        rows = torch.tensor([[1.0, 0.0] if i in small else [0.0, 1.0] for i in range(8)])
        products = torch.full((8, 8), 0.05, dtype=torch.float64)
        of, others = sorted(small), sorted(set(range(8)) - small)
        products[torch.tensor(of)[:, None], of] = common
        products[torch.tensor(others)[:, None], others] = theirs
        products.fill_diagonal_(1.0)
        described = Described(rows, rows, products, torch.ones(8))
        return judge.coalition(part, two_groups(dict(enumerate(rows))), range(8), described)

    pushing, others = (0.1, 0.5) if majority else (0.5, 0.1)
    assert judged(found, "shown", {0, 1, 2}, pushing, others) == (set() if majority else {0, 1, 2})
    again = Judge()
    again.load_state_dict(found.state_dict())
    assert again.state_dict() == found.state_dict()
    for judge in (found, again):  # the contrary, seen later and elsewhere
        for part, small in (("hidden", {0, 1, 2}), ("hidden", {1, 2}), ("shown", {0, 1, 2})):
            expected = set() if majority else small
            assert judged(judge, part, small, others, pushing) == expected
        assert judged(judge, "hidden", {5, 6, 7}, 0.5, 0.1) == {5, 6, 7}  # other groups
