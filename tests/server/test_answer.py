"""What a defense may return: anything else is one sentence that names its method."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from entity.config.schema import ConfigError
from entity.defenses import Undefended, UndefendedArgs
from entity.record.rounds import Round
from entity.server import admit
from entity.server.gate import decide
from entity.updates import Aggregation, verdicts


class Own(Undefended):
    """FedAvg whose answer is changed before it is returned."""

    change = staticmethod(lambda answer: answer)

    def aggregate(self, updates):
        return type(self).change(super().aggregate(updates))


def judged(answer, **changes):
    """Return an answer with other verdicts."""
    return replace(answer, verdicts=tuple(replace(each, **changes) for each in answer.verdicts))


def numbered(answer):
    """Return an answer whose clients are NumPy's numbers."""
    own = tuple(replace(each, client=np.int64(each.client)) for each in answer.verdicts)
    return replace(answer, verdicts=own)


@pytest.fixture
def returning(make_updates, make_resources):
    def returning(change):
        updates = make_updates([(1, 0), (0, 3)], ids=[5, 2], buffers=[[1.0], [2.0]])
        own = type("Mine", (Own,), {"change": staticmethod(change)})
        return admit(own(UndefendedArgs(), make_resources(updates)), updates)

    return returning


def test_a_row_of_the_round_is_copied(make_updates, make_resources):
    updates = make_updates([(1, 0), (0, 3)], buffers=[[1.0], [2.0]])

    class Best(Undefended):
        def aggregate(self, updates):
            answer = super().aggregate(updates)
            return replace(answer, weights=updates.weights[1], buffers=updates.buffers[1])

    row = updates.weights[1].clone(), updates.buffers[1].clone()
    answer = admit(Best(UndefendedArgs(), make_resources(updates)), updates)
    updates.weights.zero_()
    updates.buffers.zero_()
    assert all(map(torch.equal, answer.state, row))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answer: None, "returned None; it must return an entity.updates.Aggregation."),
        (lambda answer: answer.weights, "returned a tensor of float32 and shape (2,); it must"),
        (
            lambda answer: replace(answer, weights=answer.weights[:1]),
            "weights that are a tensor of float32 and shape (1,); they must be a tensor of float32 "
            "and shape (2,).",
        ),
        (
            lambda answer: replace(answer, weights=answer.weights.double()),
            "weights that are a tensor of float64",
        ),
        (lambda answer: replace(answer, weights=None), "returned weights that are None"),
        (
            lambda answer: replace(answer, buffers=answer.buffers[:0]),
            "buffers that are a tensor of float32 and shape (0,); they must be a tensor of float32 "
            "and shape (1,).",
        ),
        (
            lambda answer: replace(answer, verdicts=list(answer.verdicts)),
            "verdicts that are a list; they must be a tuple of entity.updates.Verdict",
        ),
        (lambda answer: replace(answer, verdicts=(True, False)), "verdicts that are a tuple"),
        (
            lambda answer: replace(answer, verdicts=answer.verdicts[:1]),
            "verdicts on the clients 5; there must be one for each client of the round, in their "
            "order: 5, 2.",
        ),
        (lambda answer: replace(answer, verdicts=()), "verdicts on the clients none;"),
        (
            lambda answer: replace(answer, verdicts=answer.verdicts[::-1]),
            "verdicts on the clients 2, 5; there must be",
        ),
        (
            lambda answer: replace(answer, diagnostics={"kept": torch.ones(2)}),
            'diagnostics["kept"] that is a tensor of float32 and shape (2,); it must be a number.',
        ),
        (
            lambda answer: replace(answer, diagnostics={"kept": "3"}),
            'diagnostics["kept"] that is a str; it must be a number.',
        ),
        (lambda answer: replace(answer, diagnostics=[1.0]), "diagnostics that are a list; they"),
        (lambda answer: replace(answer, diagnostics={1: 1.0}), "diagnostics with the name 1; a"),
        (
            lambda answer: replace(answer, seconds={"cluster": None}),
            'seconds["cluster"] that is None; it must be a number.',
        ),
        (
            lambda answer: replace(answer, seconds={"cluster": float("nan")}),
            'seconds["cluster"] = nan; it must be a finite number from 0 on.',
        ),
        (
            lambda answer: replace(answer, seconds={"cluster": -1.0}),
            'seconds["cluster"] = -1.0; it must be',
        ),
        (
            lambda answer: replace(answer, diagnostics={"own": np.complex64(1)}),
            'diagnostics["own"] that is a complex64; it must be a number.',
        ),
        (
            lambda answer: replace(answer, diagnostics={"own": np.array([1j])}),
            'diagnostics["own"] that is a ndarray; it must be a number.',
        ),
        (
            lambda answer: replace(answer, diagnostics={"own": 10**400}),
            'diagnostics["own"] that is an int; it must be a number.',
        ),
        (
            lambda answer: judged(answer, accepted=float("nan")),
            "a verdict with accepted = nan; it must be true or false.",
        ),
        (
            lambda answer: judged(answer, score=[1.0]),
            "a verdict with score that is a list; it must",
        ),
        (
            lambda answer: judged(answer, accepted=False, weight=0.5),
            "is refused, with weight 0.5; who is refused has 0.",
        ),
        (lambda answer: judged(answer, weight=None), "a verdict with weight that is None; it must"),
        (lambda answer: judged(answer, accepted="no"), "verdict with accepted that is a str; it"),
        (lambda answer: judged(answer, reason=3), "verdict with reason that is an int; it must be"),
    ],
)
def test_what_is_no_answer_to_the_round_is_named(returning, change, said):
    with pytest.raises(ConfigError, match=r"^Mine\.aggregate returned ") as error:
        returning(change)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ([1.0, 1.0], "Undefended averages with shares from 1 to 1 that sum to 2; they must be"),
        ([1.5, -0.5], "with shares from -0.5 to 1.5 that sum to 1"),
        ([0.5, float("nan")], "that sum to nan"),
    ],
)
def test_shares_that_are_no_convex_weights_are_refused(make_updates, make_resources, shares, said):
    updates = make_updates([[1.0], [2.0]])
    server = Undefended(UndefendedArgs(), make_resources(updates))
    for average in (
        lambda each: server.average(updates, each),
        lambda each: server.average_scaled(updates, each, torch.ones(2)),
    ):
        with pytest.raises(ConfigError) as refused:
            average(torch.tensor(shares))
        assert said in str(refused.value)
        mean = (updates.weights * torch.tensor([[0.25], [0.75]])).sum(0)
        assert torch.equal(average(torch.tensor([0.25, 0.75])).weights, mean)
        assert average(torch.zeros(2)).weights.tolist() == updates.global_weights.tolist()


def test_an_own_defense_draws_the_same_global_numbers_again(make_updates, make_resources):
    class Mine(Undefended):
        def aggregate(self, updates):
            shares = torch.rand(len(updates))
            return Aggregation(
                *self.average(updates, shares / shares.sum()),
                verdicts(updates, [True] * len(updates), shares / shares.sum()),
            )

    rounds = [replace(make_updates([[1.0], [2.0]]), round=number) for number in (1, 1, 2)]
    server = Mine(UndefendedArgs(), make_resources(rounds[0]))
    first, again, other = (decide(server, each).weights.item() for each in rounds)
    assert first == again != other
    before = torch.get_rng_state()
    decide(server, rounds[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_an_answer_passes_as_it_is(returning):
    answer = returning(lambda answer: replace(answer, diagnostics={"own": 1.0}))
    assert answer.diagnostics == {"own": 1.0}
    assert torch.equal(answer.weights, returning(lambda answer: answer).weights)


@pytest.mark.parametrize("half", [torch.tensor(0.5), np.float32(0.5), torch.tensor([0.5]), 0.5])
def test_what_holds_one_number_is_recorded_as_that(returning, half):
    yes = torch.tensor([True])[0]
    answer = returning(
        lambda answer: replace(
            numbered(judged(answer, score=half, weight=half, accepted=yes)),
            diagnostics={"own": half, "count": 3},
            seconds={"own": half},
        )
    )
    line = Round(1, (2, 5), frozenset(), answer, {}, {"train": 1.0}).line()
    written = json.loads(json.dumps(line))
    assert written["diagnostics"] == {"own": 0.5, "count": 3}
    assert written["seconds"] == {"train": 1.0, "aggregate_own": 0.5}
    assert written["scores"] == written["weights"] == {"5": 0.5, "2": 0.5}
    assert sorted(written["accepted"]) == [2, 5]
