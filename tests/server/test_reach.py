import numpy as np
import pytest
import torch

from entity.server.reach import REACH, drawn_in, typical


def plain(points: np.ndarray) -> tuple[int, np.ndarray]:
    """The most central row, and the points with the far ones moved, on the vectors themselves."""
    apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
    middle = np.sort(apart, axis=1)[:, (len(points) - 1) // 2]
    centre = int(middle.argmin())
    limit = REACH * middle[centre]
    away = np.maximum(apart[centre], 1e-300)
    share = np.minimum(1, limit / away)[:, None]
    return centre, points[centre] + share * (points - points[centre])


@pytest.mark.parametrize("far", [1.0, 1e5, 1e9, 3e38])
def test_it_is_what_the_vectors_themselves_give(far, make_updates):
    points = np.random.default_rng(1).normal(size=(9, 40)).astype(np.float32).astype(float)
    points[4] *= far
    points[4] = np.clip(points[4], -3e38, 3e38).astype(np.float32)
    found = drawn_in(make_updates(points, origin=[0.0] * 40))
    centre, moved = plain(points)
    apart = np.linalg.norm(moved[:, None] - moved[None], axis=-1)
    assert found.centre == centre
    np.testing.assert_allclose(found.distances, apart, rtol=1e-6, atol=1e-4)
    shares = np.full(9, 1 / 9)
    own = found.of_models(torch.from_numpy(shares)).numpy()
    assert own.min() >= 0
    assert own.sum() == pytest.approx(1)
    np.testing.assert_allclose(own @ points, shares @ moved, rtol=1e-6, atol=1e-3)


def test_nothing_changes_where_nobody_is_far(make_updates):
    updates = make_updates(torch.randn(7, 20, generator=torch.Generator().manual_seed(1)))
    found = drawn_in(updates)
    assert found.factors.tolist() == [1] * 7
    torch.testing.assert_close(found.distances, updates.distances)


@pytest.mark.parametrize(
    ("deltas", "factors"),
    [
        ([5.0], [1]),
        ([0.0, 0.0, 0.0], [1, 1, 1]),
        ([1.0, 1.0, 1.0, 3.0], [1, 1, 1, 1]),
        ([1.0, 1.0, 1.0, 2.0, 1 + 1e6], [1, 1, 1, 1, 1e-2]),
    ],
)
def test_one_client_and_identical_ones_have_no_typical_distance(deltas, factors, make_updates):
    found = drawn_in(make_updates(deltas, origin=[0.0]))
    assert found.factors.tolist() == pytest.approx(factors)
    assert found.distances.isfinite().all()


def test_the_order_in_which_clients_come_does_not_matter(make_updates):
    rows = np.array([0.0, 1.0, 2.0, 3.0, 1e20])
    found = drawn_in(make_updates(rows, ids=[3, 1, 4, 2, 5]))
    again = drawn_in(make_updates(rows[::-1].copy(), ids=[5, 2, 4, 1, 3]))
    assert found.centre == 4 - again.centre
    torch.testing.assert_close(found.factors, again.factors.flip(0))


def test_where_nobody_is_away_there_is_no_typical_size():
    assert typical(torch.zeros(3)) == 0
