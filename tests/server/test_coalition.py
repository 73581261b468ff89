"""Who pushes together where no clean image looks."""

import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist
from torch import nn

from entity.layout import ParamSpec
from entity.seeding import Seeds
from entity.server.coalition import WIDTH, Coalition, descriptions, two_groups
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
    assert history.members(alone) == frozenset()


def test_of_two_groups_of_one_size_the_one_that_agrees_more_is_the_smaller():
    rows = [(1, 0.05), (1, -0.05), (0.4, 1), (-0.4, 1)]
    assert two_groups({i: torch.tensor(row) for i, row in enumerate(rows)}).smaller == {0, 1}


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
    history = Coalition(threshold=0.2, patience=4, memory=0.95)
    for number in range(8):
        updates = a_round(spec, number, colluders=(1, 4, 6))
        members = history.members(history.observe(range(10), descriptions(updates, of, SEEDS)))
        if number < 3:
            assert members == frozenset()  # nobody has been seen often enough
    assert members == {1, 4, 6}


def test_noise_alone_and_what_clean_images_show_are_no_coalition(looked):
    spec, of = looked
    for skewed in [(), (0, 2, 5)]:
        history = Coalition(threshold=0.2, patience=4, memory=0.95)
        for number in range(12):
            updates = a_round(spec, number + 50, skewed=skewed)
            groups = history.observe(range(10), descriptions(updates, of, SEEDS))
            assert history.members(groups) == frozenset(), (skewed, groups)


def test_cosines_of_descriptions_are_those_of_the_hidden_parts(looked):
    spec, of = looked
    updates = a_round(spec, 1, colluders=(0, 1, 2))
    (view,) = of
    hidden = np.asarray((view.of(updates) - view.visible(view.of(updates))).flatten(1))
    hidden = hidden - hidden.mean(0)
    hidden /= np.linalg.norm(hidden, axis=1, keepdims=True)
    found = descriptions(updates, of, SEEDS).numpy()
    assert found.shape == (10, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found @ found.T, hidden @ hidden.T, atol=0.05)


def test_descriptions_do_not_depend_on_length_and_equal_clients_have_none(looked):
    spec, of = looked
    updates = a_round(spec, 2)
    found = descriptions(updates, of, SEEDS)
    assert torch.allclose(descriptions(1e3 * updates, of, SEEDS), found, atol=1e-4)
    same = descriptions(updates[:1].expand(5, -1), of, SEEDS)
    assert same.isfinite().all()
    assert descriptions(torch.zeros(3, spec.num_parameters), of, SEEDS).abs().max() == 0
    assert descriptions(updates[:1], of, SEEDS).abs().max() == 0  # one client is the mean


def test_the_past_counts_less_and_clients_may_come_seldom():
    history = Coalition(threshold=0.1, patience=2, memory=0.5)
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
        whole.observe(range(10), described)
        first.observe(range(10), described)
    second = Coalition(0.2, 4, 0.95)
    second.load_state_dict(first.state_dict())
    for number in range(4, 8):
        described = descriptions(a_round(spec, number, colluders=(1, 4)), of, SEEDS)
        assert whole.observe(range(10), described) == second.observe(range(10), described)
