import numpy as np
import pytest
import torch
from torch import nn

from entity import updates as module
from entity.layout import BLOCK, ParamSpec
from entity.updates import Stopwatch, Updates, verdicts


def round_of(weights, origin):
    weights = torch.as_tensor(weights, dtype=torch.float32)
    n, size = weights.shape
    holder = nn.Module()
    holder.vector = nn.Parameter(torch.zeros(size))
    return Updates(
        1,
        tuple(range(n)),
        weights,
        torch.empty(n, 0),
        torch.ones(n),
        torch.as_tensor(origin, dtype=torch.float32),
        torch.empty(0),
        ParamSpec.of(holder),
    )


def deltas_of(updates):
    return updates.weights.double().numpy() - updates.global_weights.double().numpy()


def direct_distances(updates):
    rows = updates.weights.double().numpy()
    return np.array([[np.linalg.norm(a - b) for b in rows] for a in rows])


@pytest.fixture
def wide():
    """Five clients with more than two blocks of columns, far from the origin."""
    rng = np.random.default_rng(1)
    origin = rng.normal(size=2 * BLOCK + 17)
    return round_of(origin + 0.01 * rng.normal(size=(5, len(origin))), origin)


def test_selected_rows_keep_the_given_order():
    updates = round_of([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]], [0.0, 0.0])
    part = updates.select([2, 0])
    assert part.client_ids == (2, 0)
    assert part.weights.tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert len(part.buffers) == len(part.num_samples) == 2
    assert part.distances.shape == (2, 2)
    assert updates.select([0, 1, 2]) is updates
    assert updates.state(1).weights.tolist() == [2.0, 3.0]


def test_inner_products_and_norms_are_those_of_float64_numpy(wide):
    deltas = deltas_of(wide)
    np.testing.assert_allclose(wide.gram.numpy(), deltas @ deltas.T, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(wide.norms.numpy(), np.linalg.norm(deltas, axis=1), rtol=1e-12)
    np.testing.assert_allclose(wide.deltas.numpy(), deltas, atol=1e-6)


def test_distances_are_those_of_float64_numpy(wide):
    np.testing.assert_allclose(wide.distances.numpy(), direct_distances(wide), rtol=1e-10)


def test_cosines_are_of_updates_and_not_of_models(wide):
    deltas = deltas_of(wide)
    unit = deltas / np.linalg.norm(deltas, axis=1, keepdims=True)
    np.testing.assert_allclose(wide.cosines.numpy(), unit @ unit.T, atol=1e-12)
    assert float((wide.cosines - torch.eye(5)).abs().max()) < 0.1  # of models it were near 1


def test_nearly_identical_clients_keep_their_distance():
    rng = np.random.default_rng(0)
    origin = rng.normal(size=BLOCK + 1000)
    rows = torch.from_numpy(origin + rng.normal(size=(9, len(origin)))).float()
    rows[[1, 4, 8]] = rows[0].clone()
    rows[4, 5] = torch.nextafter(rows[4, 5], torch.tensor(9.0))
    rows[8, -1] += 1e-4
    updates = round_of(rows, origin)
    found, true = updates.distances.numpy(), direct_distances(updates)
    assert found[0, 1] == 0  # identical
    assert 0 < true[0, 4] < 1e-6
    np.testing.assert_allclose(found, true, rtol=1e-6)
    assert (found == found.T).all()


def test_rows_that_are_equal_are_compared_once(monkeypatch):
    rng = np.random.default_rng(4)
    start, far = rng.normal(size=(2, 400))
    near = start + 1e-7 * rng.normal(size=400)
    updates = round_of(np.stack([start, near, start, far, near, near, start]), np.zeros(400))
    asked = []
    plain = module._squared_distance

    def counted(a, b):
        asked.append(1)
        return plain(a, b)

    monkeypatch.setattr(module, "_squared_distance", counted)
    found = updates.distances.numpy()
    np.testing.assert_allclose(found, direct_distances(updates), rtol=1e-6)
    assert found[0, 2] == found[1, 4] == 0 < found[0, 1] == found[5, 6]
    assert len(asked) == 1


def test_an_update_of_zero_has_cosine_zero_and_no_nan():
    updates = round_of([[1.0, 2.0], [1.0, 5.0], [4.0, 2.0], [1.0, 3.0]], [1.0, 2.0])
    np.testing.assert_allclose(
        updates.cosines.numpy(),
        [[0, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0], [0, 1, 0, 1]],
        atol=1e-15,
    )
    assert updates.norms.tolist() == [0, 3, 3, 1]
    assert updates.distances[0].tolist() == [0, 3, 3, 1]


def test_the_largest_floats_do_not_overflow():
    updates = round_of([[3e38, 3e38], [-3e38, 3e38], [0.0, 1.0]], [0.0, 0.0])
    np.testing.assert_allclose(updates.distances.numpy(), direct_distances(updates), rtol=1e-10)
    assert updates.cosines.isfinite().all()


def test_verdicts_pair_clients_with_what_was_decided(make_updates):
    updates = make_updates([1, 2, 3], ids=[9, "b", 4])
    found = verdicts(
        updates, [True, False, False], torch.tensor([1.0, 0, 0]), scores=[3, 2, 1], reasons={1: "x"}
    )
    assert [(v.client, v.accepted, v.weight, v.score, v.reason) for v in found] == [
        (9, True, 1.0, 3.0, ""),
        ("b", False, 0.0, 2.0, "x"),
        (4, False, 0.0, 1.0, "refused"),
    ]
    assert verdicts(updates, [True] * 3, torch.ones(3))[0].score is None


def test_a_stopwatch_adds_up_phases_even_when_they_raise():
    ticks = iter([0.0, 2.0, 10.0, 13.0, 20.0, 21.0])
    watch = Stopwatch(lambda: next(ticks))
    with watch("cluster"):
        pass
    with watch("distill"):
        pass
    with pytest.raises(RuntimeError), watch("cluster"):
        raise RuntimeError
    assert watch.seconds == {"cluster": 3.0, "distill": 3.0}
