"""Two groups of clients, and how far apart they are."""

import math

import numpy as np
import pytest
import torch
from colluders import groups_of, normal
from scipy.cluster.hierarchy import average, fcluster
from scipy.spatial.distance import pdist

from entity.server.coalition_search import Look
from entity.server.push_history import PushHistory


@pytest.mark.parametrize("seed", range(12))
def test_the_groups_are_those_of_scipys_average_linkage_of_cosines(seed):
    """Cut into as few clusters as have two of two members; those of one are set aside."""
    rows = normal(9, 5, seed=seed)
    tree = average(pdist(rows.numpy().astype("f8"), "cosine"))
    for clusters in range(2, 9):
        labels = fcluster(tree, clusters, "maxclust")
        groups = [{i for i in range(9) if labels[i] == label} for label in set(labels)]
        groups = sorted((group for group in groups if len(group) > 1), key=len)
        if len(groups) == 2:
            break
    found = groups_of(dict(enumerate(rows)))
    assert [set(found.smaller), set(found.larger)] in (groups, groups[::-1])


def test_clients_who_agree_with_nobody_hide_no_coalition():
    """One or two of the attackers may push elsewhere, so that the root parts them from all."""
    axes = torch.eye(4)
    together = dict.fromkeys(range(3), axes[0]) | dict.fromkeys(range(3, 8), axes[1])
    for lone in ({8: axes[2]}, {8: axes[2], 9: axes[3]}, {8: -axes[0] - axes[1]}):
        groups = groups_of(together | lone)
        assert groups == ({0, 1, 2}, {3, 4, 5, 6, 7}, 1.0, math.inf, set())


def test_the_contrast_of_a_hand_made_case():
    """Two at 0 degrees, three at 0, 60 and 60 degrees from the other axis."""
    at = [0, 0, 90, 90 + 60, 90 + 60]
    rows = {
        i: torch.tensor([math.cos(a), math.sin(a)]) for i, a in enumerate(map(math.radians, at))
    }
    groups = groups_of(rows)
    assert groups.smaller == {0, 1}
    within = (0.5 + 0.5 + 1) / 3
    between = (0 + 2 * math.cos(math.radians(150))) / 3
    assert groups.contrast == pytest.approx(within - between)
    cosines = [[1], [0.5, 0.5, 1], [0, 0, -(0.75**0.5), -(0.75**0.5), -(0.75**0.5), -(0.75**0.5)]]
    about = np.concatenate([np.array(each) - np.mean(each) for each in cosines])
    assert groups.effect == pytest.approx((within - between) / np.sqrt(np.mean(about**2)))


def test_groups_that_do_not_vary_have_no_bound_to_their_effect():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    groups = groups_of({0: a, 1: a, 2: b, 3: b, 4: b})
    assert groups == ({0, 1}, {2, 3, 4}, 1.0, math.inf, set())


def test_fewer_than_four_clients_one_alone_and_all_alike_are_no_coalition():
    a, b = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert groups_of({0: a, 1: b, 2: b}).smaller == frozenset()
    alone = groups_of({0: a, 1: b, 2: b, 3: b})
    assert alone.smaller == frozenset()
    assert math.isnan(alone.contrast)
    assert groups_of(dict.fromkeys(range(6), a)).smaller == frozenset()
    nothing = groups_of({i: torch.zeros(2) for i in range(6)})
    assert not nothing.contrast >= 0.1
    assert not Look(PushHistory(1, 1.0), enough=0.0).clear(alone)
    alike = groups_of(dict.fromkeys(range(6), normal(5)))
    assert not Look(PushHistory(1, 1.0), enough=0.0).clear(alike)


def test_of_two_groups_of_one_size_the_one_that_agrees_more_is_the_smaller():
    rows = [(1, 0.05), (1, -0.05), (0.4, 1), (-0.4, 1)]
    assert groups_of({i: torch.tensor(row) for i, row in enumerate(rows)}).smaller == {0, 1}


def test_it_does_not_depend_on_the_order_of_clients():
    rows = normal(8, 4, seed=3)
    rows[4] = rows[0]
    forth = groups_of(dict(enumerate(rows)))
    back = groups_of({i: rows[i] for i in reversed(range(8))})
    assert forth.smaller == back.smaller
    assert forth.contrast == pytest.approx(back.contrast)


def test_who_is_hardly_more_like_its_group_than_like_the_other_is_loose():
    """Four push one way; a fifth, who agrees with nobody, is joined to them by chance."""
    axes = torch.eye(12)
    rows = {i: axes[0] + 0.3 * axes[2 + i] for i in range(4)}
    rows |= {i: axes[1] + 0.3 * axes[2 + i] for i in range(5, 10)}
    rows[4] = axes[11] + 0.25 * axes[0] + 0.1 * axes[1]
    rows[10] = axes[11] + 0.3 * axes[0] - 0.2 * axes[1]  # so that the fifth is not set aside
    groups = groups_of(rows)
    assert groups.smaller | groups.larger == set(range(11))
    found = groups.smaller if 0 in groups.smaller else groups.larger
    unit = {i: np.asarray(row / row.norm()) for i, row in rows.items()}

    def alike(client, others):
        return np.mean([unit[client] @ unit[other] for other in others if other != client])

    others = (groups.smaller | groups.larger) - found
    loose = set()
    for own, away in ((found, others), (others, found)):
        loose |= {i for i in own if alike(i, own) - alike(i, away) < 0.5 * groups.contrast}
    assert groups.loose == loose
    assert not loose & {0, 1, 2, 3}
