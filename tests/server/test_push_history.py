"""What is remembered of what clients push for."""

import numpy as np
import pytest
import torch
from colluders import SEEDS, a_round, looked, normal

from entity.server.amounts import without_amounts
from entity.server.push_history import PushHistory
from entity.server.sketches import descriptions

ALIKE = torch.full((10,), 350)
"""Amounts of data."""


@pytest.fixture
def looked_at():
    return looked()


def test_the_past_counts_less_and_clients_may_come_seldom():
    history = PushHistory(patience=2, memory=0.5)
    one = torch.tensor([1.0, 0.0])
    history.observe(["a", "b"], torch.stack([one, one]), torch.ones(2))
    history.observe(["a"], torch.tensor([[0.0, 1.0]]), torch.ones(1))
    assert history.sums["a"].tolist() == [0.5, 1.0]
    assert history.sums["b"].tolist() == [1.0, 0.0]
    assert history.seen == {"a": 2, "b": 1}


def test_of_many_clients_those_who_came_last_are_remembered():
    """And all of a round, and who is known to be in a coalition, in whatever order they come."""
    history = PushHistory(patience=2, memory=0.5)

    def come(*clients, known=()):
        history.observe(
            clients, torch.ones(len(clients), 2), torch.arange(len(clients)), known, most=3
        )
        assert history.seen.keys() == history.samples.keys()
        assert history.seen.keys() == history.sums.keys()
        return set(history.sums)

    assert come(3, 2, 1) == {1, 2, 3}
    assert come(1, 4) == {1, 3, 4}
    assert come(3) == {1, 3, 4}
    assert come(5) == {3, 4, 5}
    assert history.seen == {4: 1, 3: 2, 5: 1}
    assert come(6, 7, known={4}) == {4, 5, 6, 7}
    assert come(8, 9, 10, 11, known={4}) == {4, 8, 9, 10, 11}
    assert come(4, 12) == {4, 11, 12}


def test_a_history_goes_on_from_its_state(looked_at):
    spec, of = looked_at
    whole, first = (PushHistory(4, 0.95) for _ in range(2))
    for number in range(4):
        described = descriptions(a_round(spec, number, colluders=(1, 4)), of, SEEDS)
        whole.observe(range(10), described.hidden, ALIKE)
        first.observe(range(10), described.hidden, ALIKE)
    second = PushHistory(4, 0.95)
    second.load_state_dict(first.state_dict())
    for number in range(4, 8):
        described = descriptions(a_round(spec, number, colluders=(1, 4)), of, SEEDS)
        whole.observe(range(10), described.hidden, ALIKE)
        second.observe(range(10), described.hidden, ALIKE)
        known = whole.known()
        assert known == second.known() == list(range(10))
        assert torch.equal(whole.cosines(known), second.cosines(known))


def test_cosines_are_those_of_the_sums_without_what_amounts_account_for():
    amounts = torch.tensor([785, 210, 151, 176, 504, 367, 506, 580, 162, 59])
    history = PushHistory(patience=2, memory=0.5)
    sums = np.zeros((10, 6))
    for number in range(3):
        rows = normal(10, 6, seed=number)
        history.observe(range(10), rows, amounts)
        sums = 0.5 * sums + rows.numpy()
    for clients in (range(10), [1, 2, 4, 7, 9]):
        of = sums[clients] / np.linalg.norm(sums[clients], axis=1, keepdims=True)
        expected = without_amounts(torch.from_numpy(of @ of.T), amounts[clients])
        torch.testing.assert_close(history.cosines(clients), expected, rtol=0, atol=1e-6)


def test_cosines_are_of_what_is_remembered_now():
    """Regression guard: they are kept, until a client comes or is forgotten."""
    history, ones = PushHistory(patience=1, memory=1.0), torch.ones(3)
    history.observe("abc", torch.eye(3), ones)
    assert history.cosines(["a", "b"])[0, 1] == 0
    state = history.state_dict()
    history.observe("abc", torch.eye(3)[[1, 1, 2]], ones)
    assert history.cosines(["a", "b"])[0, 1] == pytest.approx(0.5**0.5)
    history.pardon("a")
    assert history.known() == ["b", "c"]
    with pytest.raises(KeyError):
        history.cosines(["a", "b"])
    history.load_state_dict(state)
    assert history.cosines(["a", "b"])[0, 1] == 0


def test_who_can_be_compared_comes_in_the_order_of_ids():
    history = PushHistory(patience=1, memory=1.0)
    history.observe(["b", 3, "a", 1], torch.ones(4, 2), torch.ones(4))
    assert history.known() == [1, 3, "a", "b"]
    assert history.known(without={3, "b"}) == [1, "a"]
