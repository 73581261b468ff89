"""Who pushes together, where no clean image looks and where they do."""

import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist
from torch import nn

from entity.layout import ParamSpec
from entity.seeding import Seeds
from entity.server.coalition import HIDDEN, SHOWN, Coalition, Described, descriptions, two_groups
from entity.server.visible import views

SEEDS = Seeds(3)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(5))
def test_the_groups_are_those_of_scipys_average_linkage_of_cosines(seed):
    rows = random(9, 5, seed=seed)
    labels = fcluster(average(pdist(rows.numpy().astype("f8"), "cosine")), 2, "maxclust")
    groups = [{i for i in range(9) if labels[i] == label} for label in (1, 2)]
    found = two_groups(dict(enumerate(rows)))
    assert set(found.smaller) == min(groups, key=len)


def test_the_contrast_of_a_hand_made_case():
    """Two at 0 degrees, three at 0, 60 and 60 degrees from the other axis."""
    at = [0, 0, 90, 90 + 60, 90 + 60]
    rows = {
        i: torch.tensor([math.cos(a), math.sin(a)]) for i, a in enumerate(map(math.radians, at))
    }
    groups = two_groups(rows)
    assert groups.smaller == {0, 1}
    within = (0.5 + 0.5 + 1) / 3
    between = (0 + 2 * math.cos(math.radians(150))) / 3
    assert groups.contrast == pytest.approx(within - between)
    cosines = [[1], [0.5, 0.5, 1], [0, 0, -(0.75**0.5), -(0.75**0.5), -(0.75**0.5), -(0.75**0.5)]]
    about = np.concatenate([np.array(each) - np.mean(each) for each in cosines])
    assert groups.effect == pytest.approx((within - between) / np.sqrt(np.mean(about**2)))


def test_groups_that_do_not_vary_have_no_bound_to_their_effect():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    groups = two_groups({0: a, 1: a, 2: b, 3: b, 4: b})
    assert groups == ({0, 1}, {2, 3, 4}, 1.0, math.inf)


def test_fewer_than_four_clients_one_alone_and_all_alike_are_no_coalition():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert two_groups({0: a, 1: b, 2: b}).smaller == frozenset()
    alone = two_groups({0: a, 1: b, 2: b, 3: b})
    assert alone.smaller == {0}
    assert math.isnan(alone.contrast)
    assert two_groups(dict.fromkeys(range(6), a)).smaller == frozenset()
    nothing = two_groups({i: torch.zeros(2) for i in range(6)})
    assert not nothing.contrast >= 0.1
    history = Coalition(0.0, 1, 1.0)
    rows = torch.zeros(4, 2)
    described = Described(rows, rows, torch.zeros(4, 4), torch.zeros(4))
    assert history.members(alone, range(4), described) == frozenset()


def test_of_two_groups_of_one_size_the_one_that_agrees_more_is_the_smaller():
    rows = [(1, 0.05), (1, -0.05), (0.4, 1), (-0.4, 1)]
    assert two_groups({i: torch.tensor(row) for i, row in enumerate(rows)}).smaller == {0, 1}


# Of the clients 0 and 1, and of the others: products of their hidden parts, and hidden shares.
@pytest.mark.parametrize(
    ("few", "many", "size", "expected"),
    [
        ((0.5, 0.3), (0.1, 0.3), 5, {0, 1}),  # they push
        ((0.1, 0.3), (0.17, 0.3), 5, {0, 1}),  # nobody pushes much more than the others
        ((0.1, 0.3), (0.5, 0.3), 5, set()),  # the others do, and may be a majority of attackers
        ((0.1, 0.16), (0.5, 0.3), 5, set()),
        ((0.1, 0.14), (0.5, 0.3), 5, {0, 1}),  # the others do, and these hide next to nothing
        ((0.5, 0.3), (0.1, 0.3), 4, {0, 1}),
        ((0.1, 0.3), (0.11, 0.3), 4, {2, 3}),  # of one size: those who push
        ((0.0, 0.0), (0.0, 0.0), 5, {0, 1}),
    ],
)
def test_who_pushes_where_no_clean_image_looks_decides_between_groups(few, many, size, expected):
    history = Coalition(enough=0.2, patience=1, memory=0.5)
    rows = torch.tensor([[1.0, 0.0]] * 2 + [[0.0, 1.0]] * (size - 2))
    groups = history.observe(range(size), rows)
    products = torch.full((size, size), 0.05, dtype=torch.float64)
    products[:2, :2], products[2:, 2:] = few[0], many[0]
    products.fill_diagonal_(1.0)
    squares = 1 / torch.tensor([few[1]] * 2 + [many[1]] * (size - 2)).clamp_min(1e-9)
    described = Described(rows, rows, products, squares)
    assert history.members(groups, range(size), described) == expected
    for theirs in (0.0, 0.1, 5.0):  # which of two groups pushes is judged once
        products[2:, 2:] = theirs
        products.fill_diagonal_(1.0)
        if size > 4:
            assert history.members(groups, range(size), described) == expected
    two = [0, size - 1]  # of each group only one is there: nothing but the size is known
    here = Described(rows[two], rows[two], products[two][:, two], squares[two])
    new = Coalition(enough=0.2, patience=1, memory=0.5)
    assert len(new.members(new.observe(range(size), rows), two, here)) == 2
    if size > 4:  # or how it was judged before
        assert history.members(groups, two, here) == expected


def test_half_of_the_clients_are_found_by_what_they_push_where_no_clean_image_looks(looked):
    """Also where the others are the more alike: four attackers frame a fifth client."""
    spec, of = looked
    for pushers in [(0, 1, 2, 3, 4), (5, 6, 7, 8, 9)]:
        history = Coalition(enough=0.2, patience=4, memory=0.95)
        for number in range(30):
            updates = a_round(spec, number, colluders=pushers)
            described = descriptions(updates, of, SEEDS)
            groups = history.observe(range(10), described.hidden)
            if number >= 3:
                assert history.members(groups, range(10), described) == {*pushers}


def test_products_are_those_of_the_hidden_parts_and_squares_of_the_whole(looked):
    spec, of = looked
    updates = a_round(spec, 1, colluders=(0, 1, 2), skewed=(3, 4))
    (view,) = of
    whole = np.asarray(view.of(updates).flatten(1), "f8")
    hidden = whole - np.asarray(view.visible(view.of(updates)).flatten(1))
    found = descriptions(updates, of, SEEDS)
    np.testing.assert_allclose(found.products, hidden @ hidden.T, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.squares, (whole**2).sum(1), rtol=1e-6)


def test_it_does_not_depend_on_the_order_of_clients():
    rows = random(8, 4, seed=3)
    rows[4] = rows[0]
    forth = two_groups(dict(enumerate(rows)))
    back = two_groups({i: rows[i] for i in reversed(range(8))})
    assert forth.smaller == back.smaller
    assert forth.contrast == pytest.approx(back.contrast)


@pytest.fixture
def looked():
    """A linear model on images whose first column is black: what is seen of its updates."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    images = random(300, 1, 8, 8, seed=1)
    images[..., 0] = 0
    spec = ParamSpec.of(model)
    return spec, list(views(model, spec, images, 0.01, torch.Generator()))


def a_round(spec, number, colluders=(), skewed=(), clients=10):
    """Noise; colluders push black pixels in one way, the skewed ones the visible in one way."""
    rows = random(clients, spec.num_parameters, seed=number)
    weight = spec.slot("1.weight").of(rows).unflatten(-1, (8, 8))
    for client in colluders:
        weight[client, 7, :, 0] += 2.0
    for client in skewed:
        weight[client, 3, :, 4] += 4.0
    return rows


def test_colluders_are_found_by_what_they_repeat_and_nobody_else(looked):
    spec, of = looked
    history = Coalition(enough=0.2, patience=4, memory=0.95)
    for number in range(8):
        updates = a_round(spec, number, colluders=(1, 4, 6))
        described = descriptions(updates, of, SEEDS)
        groups = history.observe(range(10), described.hidden)
        members = history.members(groups, range(10), described)
        if number < 3:
            assert members == frozenset()  # nobody has been seen often enough
    assert members == {1, 4, 6}


def test_noise_alone_and_what_clean_images_show_are_no_coalition(looked):
    spec, of = looked
    for skewed in [(), (0, 2, 5)]:
        history = Coalition(enough=0.2, patience=4, memory=0.95)
        for number in range(12):
            updates = a_round(spec, number + 50, skewed=skewed)
            described = descriptions(updates, of, SEEDS)
            groups = history.observe(range(10), described.hidden)
            assert not history.members(groups, range(10), described), (skewed, groups)


def test_in_the_visible_part_they_must_be_more_alike_than_clients_of_many_kinds(looked):
    """Three who all push one way; or ten with their own mixes of ten classes, under Dirichlet."""
    spec, of = looked
    mixes = torch.from_numpy(np.random.default_rng(1).dirichlet([0.5] * 10, 10)).float()
    classes = mixes @ random(10, spec.num_parameters, seed=9)
    for colluders, expected in [((0, 2, 5), {0, 2, 5}), ((), set())]:
        history = Coalition(enough=math.inf, patience=4, memory=0.95, least=0.1, effect=2.5)
        for number in range(8):
            updates = a_round(spec, number + 50, skewed=colluders)
            if not colluders:
                updates = updates + 4.0 * classes
            described = descriptions(updates, of, SEEDS)
            groups = history.observe(range(10), described.shown)
        assert groups.contrast > 0.1
        assert history.members(groups, range(10), described) == expected, groups


def test_cosines_of_descriptions_are_those_of_the_parts(looked):
    spec, of = looked
    updates = a_round(spec, 1, colluders=(0, 1, 2), skewed=(3, 4))
    (view,) = of
    shown = view.visible(view.of(updates))
    described = descriptions(updates, of, SEEDS)
    assert (described.hidden.shape, described.shown.shape) == ((10, HIDDEN), (10, SHOWN))
    for found, part in zip(described, (view.of(updates) - shown, shown), strict=False):
        own = np.asarray(part.flatten(1))
        own = own - own.mean(0)
        own /= np.linalg.norm(own, axis=1, keepdims=True)
        np.testing.assert_allclose(np.linalg.norm(found.numpy(), axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(found @ found.T, own @ own.T, atol=0.05)


@pytest.mark.parametrize("part", ["hidden", "shown"])
def test_descriptions_do_not_depend_on_length_and_equal_clients_have_none(looked, part):
    spec, of = looked

    def described(updates):
        return getattr(descriptions(updates, of, SEEDS), part)

    updates = a_round(spec, 2)
    assert torch.allclose(described(1e3 * updates), described(updates), atol=1e-4)
    assert described(updates[:1].expand(5, -1)).isfinite().all()
    assert described(torch.zeros(3, spec.num_parameters)).abs().max() == 0
    assert described(updates[:1]).abs().max() == 0  # one client is the mean


def test_the_past_counts_less_and_clients_may_come_seldom():
    history = Coalition(enough=0.1, patience=2, memory=0.5)
    one = torch.tensor([1.0, 0.0])
    history.observe(["a", "b"], torch.stack([one, one]))
    history.observe(["a"], torch.tensor([[0.0, 1.0]]))
    assert history.sums["a"].tolist() == [0.5, 1.0]
    assert history.sums["b"].tolist() == [1.0, 0.0]
    assert history.seen == {"a": 2, "b": 1}


def test_a_history_goes_on_from_its_state(looked):
    spec, of = looked
    whole, first = (Coalition(0.2, 4, 0.95) for _ in range(2))
    for number in range(4):
        described = descriptions(a_round(spec, number, colluders=(1, 4)), of, SEEDS)
        whole.observe(range(10), described.hidden)
        first.observe(range(10), described.hidden)
    second = Coalition(0.2, 4, 0.95)
    second.load_state_dict(first.state_dict())
    for number in range(4, 8):
        described = descriptions(a_round(spec, number, colluders=(1, 4)), of, SEEDS)
        assert whole.observe(range(10), described.hidden) == second.observe(
            range(10), described.hidden
        )
