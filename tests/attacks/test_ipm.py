import numpy as np
import pytest

from entity.attacks.ipm import Ipm, IpmArgs
from entity.seeding import Seeds


@pytest.mark.parametrize(("epsilon", "left"), [(0.5, 0.4), (1.5, 0.0), (2.0, -0.2)])
def test_t14_the_mean_of_the_round(make_round, epsilon, left):
    mu = np.array([2.0, -4.0])
    updates = make_round(np.tile(mu, (10, 1)))
    Ipm.collude(IpmArgs(ipm_epsilon=epsilon), updates, [0, 3, 4, 9], Seeds(0))
    np.testing.assert_allclose(updates.deltas.mean(0).numpy(), left * mu, atol=1e-6)


@pytest.mark.parametrize(("knowledge", "mean"), [("omniscient", 4.0), ("colluders", -3.0)])
def test_whose_mean_is_reversed_is_a_setting(make_round, knowledge, mean):
    updates = make_round([[3.0], [-2.0], [-4.0], [5.0]])
    Ipm.collude(IpmArgs(ipm_epsilon=1.0, knowledge=knowledge), updates, [1, 2], Seeds(0))
    assert updates.deltas.flatten().tolist() == [3, -mean, -mean, 5]


def test_where_nobody_is_benign_the_colluders_mean_is_taken(make_round):
    updates = make_round([[3.0], [1.0]])
    Ipm.collude(IpmArgs(), updates, [0, 1], Seeds(0))
    assert updates.deltas.flatten().tolist() == [-1, -1]


def test_buffers_are_left_alone(make_round):
    updates = make_round([[3.0], [1.0]])
    before = updates.buffers.tolist()
    Ipm.collude(IpmArgs(), updates, [0], Seeds(0))
    assert updates.buffers.tolist() == before
