import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from entity.config.schema import ConfigError
from entity.defenses.dnc import Dnc, DncArgs, outlier_scores
from entity.server import admit
from entity.server.contract import Setting


def plain_scores(rows: np.ndarray) -> np.ndarray:
    """The squared projections by the eigenvectors of the covariance, not by a decomposition."""
    centred = rows - rows.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return (centred @ vectors[:, -1]) ** 2


def kept(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def run(updates, make_resources, **args):
    changes = {name: args.pop(name) for name in list(args) if name in ("seed", "server_lr")}
    return Dnc(DncArgs(**args), make_resources(updates, **changes)).aggregate(updates)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 9))
def test_the_scores_are_those_of_the_covariances_first_eigenvector(seed, n):
    rows = np.random.default_rng(seed).normal(size=(n, 4)) * [4.0, 2.0, 1.0, 0.5]
    found = outlier_scores(torch.from_numpy(rows))
    np.testing.assert_allclose(found, plain_scores(rows), rtol=1e-6, atol=1e-9)


def test_by_hand_who_sticks_out_on_the_longest_axis_goes(make_updates, make_resources):
    """The centre is (1, 0); on the long axis they lie at -1, -1, -1, -1 and 4."""
    updates = make_updates([[0, 0.1], [0, -0.1], [0, 0.2], [0, -0.2], [5, 0]])
    answer = run(updates, make_resources, f=1)
    assert kept(answer) == [0, 1, 2, 3]
    assert [v.score for v in answer.verdicts] == pytest.approx([1, 1, 1, 1, 16], abs=1e-6)
    moved = answer.weights - updates.global_weights
    assert moved.tolist() == pytest.approx([0, 0], abs=1e-7)
    assert answer.verdicts[4].reason == "not among the 4 lowest outlier scores"


def test_a_short_axis_does_not_matter(make_updates, make_resources):
    """Client 4 is the farthest from the mean but for the axis on which all are spread."""
    rows = [[-4.0, 0], [-2, 0], [0, 0], [2, 0], [0.5, 2.4], [4.0, 0]]
    answer = run(make_updates(rows), make_resources, f=2)
    assert kept(answer) == [1, 2, 3, 4]


def test_colluders_are_left_out_of_a_round_of_many_parameters(make_updates, make_resources):
    rng = np.random.default_rng(0)
    rows = 0.1 * rng.normal(size=(12, 500))
    rows[2:6] += 0.2 * rng.normal(size=500)
    updates = make_updates(rows)
    answer = run(updates, make_resources, f=4, parameters=100)
    assert kept(answer) == [0, 1, *range(6, 12)]
    expected = updates.weights[kept(answer)].mean(0)
    torch.testing.assert_close(answer.weights, expected)


@pytest.mark.parametrize(("c", "count"), [(0.5, 9), (1.0, 8), (1.5, 7), (1.25, 7)])
def test_c_says_how_many_of_f_go_rounded_up(make_updates, make_resources, c, count):
    rows = np.random.default_rng(1).normal(size=(10, 6))
    assert len(kept(run(make_updates(rows), make_resources, f=2, c=c))) == count


def test_only_who_passes_every_time_is_averaged(make_updates, make_resources):
    """Each liar is loud in one parameter, of which one is drawn at a time."""
    rows = np.zeros((9, 2))
    rows[:, 0] = rows[:, 1] = np.linspace(-0.1, 0.1, 9)
    rows[3] = [9, 0]
    rows[4] = [0, 9]
    updates = make_updates(rows)
    once = run(updates, make_resources, f=1, parameters=1)
    assert len(kept(once)) == 8
    often = run(updates, make_resources, f=1, parameters=1, iterations=20)
    assert {3, 4} & set(kept(often)) == set()
    assert kept(often) == [0, 1, 2, 5, 6, 7, 8]


def test_where_nobody_passes_every_time_the_global_model_stays(make_updates, make_resources):
    updates = make_updates(np.diag([1.0, 2.0, 3.0]))
    answer = run(updates, make_resources, f=1, c=1.9, parameters=1, iterations=60)
    assert kept(answer) == []
    assert torch.equal(answer.weights, updates.global_weights)
    assert answer.diagnostics["kept"] == 0


def test_parameters_are_drawn_anew_in_every_round_by_the_seed_alone(make_updates, make_resources):
    rows = np.random.default_rng(2).normal(size=(8, 40))

    def scores(number: int, seed: int = 0) -> list:
        updates = make_updates(rows, round=number)
        found = run(updates, make_resources, f=2, parameters=5, seed=seed)
        return [v.score for v in found.verdicts]

    assert scores(1) == scores(1)
    assert scores(1) != scores(2)
    assert scores(1) != scores(1, seed=1)


def test_all_of_a_smaller_model_are_taken(make_updates, make_resources):
    rows = np.random.default_rng(3).normal(size=(7, 5))
    updates = make_updates(rows, origin=np.zeros(5))
    answer = run(updates, make_resources, f=2)
    assert [v.score for v in answer.verdicts] == pytest.approx(plain_scores(rows), rel=1e-4)


def test_identical_clients_tie_and_the_lowest_ids_stay(make_updates, make_resources):
    updates = make_updates([[1.0, 2.0]] * 5, ids=[9, 4, 7, 1, 8])
    assert kept(run(updates, make_resources, f=2)) == [4, 7, 1]


@pytest.mark.parametrize("far", [1e6, 1e16, 3e38])
def test_a_far_decoy_does_not_leave_the_choice_to_the_ids(far, make_updates, make_resources):
    """The decoy lies along the colluders' direction, whose projections are lost beside it."""
    rng = np.random.default_rng(0)
    way = np.ones(30)
    rows = 0.1 * rng.normal(size=(16, 30))
    rows[:4] -= 0.5 * way
    rows[15] = far * way
    assert kept(run(make_updates(rows), make_resources, f=5)) == list(range(4, 15))


def test_the_bound_is_an_estimate_or_what_was_given(make_updates, make_resources):
    updates = make_updates(np.random.default_rng(4).normal(size=(9, 3)))
    assert run(updates, make_resources).diagnostics["f"] == 4
    assert run(updates, make_resources, f=2).diagnostics["f"] == 2
    oracle = make_resources(updates, malicious_count=10, federation_size=30)
    answer = Dnc(DncArgs(f="oracle"), oracle).aggregate(updates)
    assert answer.diagnostics["f"] == 3
    assert len(kept(answer)) == 6


@pytest.mark.parametrize(
    ("args", "size", "said"),
    [
        ({"f": 5}, 10, "Dnc needs n >= 2f \\+ 1 clients in the round; n = 10, f = 5: lower"),
        ({"f": 4, "c": 2.5}, 10, "defense_args.c = 2.5: c f = 10 of 10 clients would be left out"),
        ({}, 2, "n = 2, f = 1: raise federation.round_size"),
    ],
)
def test_settings_that_leave_nobody_are_refused(args, size, said):
    with pytest.raises(ConfigError, match=said):
        Dnc.check(DncArgs(**args), Setting(size, 0, (1, 4)))


def test_too_few_that_came_keep_the_global_model(make_updates, make_resources):
    updates = make_updates([[1.0], [2.0], [float("nan")], [float("nan")]])
    found = admit(Dnc(DncArgs(f=1), make_resources(updates)), updates)
    assert torch.equal(found.weights, updates.global_weights)
    assert found.diagnostics["kept_global"] == 1


def partly_frozen(frozen, deltas):
    """A model with so many frozen weights before its trained ones, and updates of those."""
    model = nn.Sequential(nn.Linear(frozen, 1, bias=False).requires_grad_(False))
    model.append(nn.Linear(deltas.shape[1], 1, bias=False))
    return model, torch.cat([torch.zeros(len(deltas), frozen), deltas], 1)


@pytest.mark.parametrize("frozen", [1, 200_000])
def test_what_is_drawn_is_trained(make_updates, make_resources, frozen):
    """Regression: of many frozen parameters none that tells clients apart was drawn."""
    trained = 1 + 0.1 * torch.randn(10, 20, generator=torch.Generator().manual_seed(1))
    trained[:3] -= 6
    model, deltas = partly_frozen(frozen, trained)
    updates = make_updates(deltas, model=model, origin=torch.full((frozen + 20,), 0.5))
    answer = Dnc(DncArgs(f=3, parameters=10), make_resources(model)).aggregate(updates)
    assert kept(answer) == list(range(3, 10))
    alone = make_updates(trained, origin=torch.full((20,), 0.5))
    plain = run(alone, make_resources, f=3, parameters=10)
    torch.testing.assert_close(
        torch.tensor([v.score for v in answer.verdicts]),
        torch.tensor([v.score for v in plain.verdicts]),
        rtol=1e-4,
        atol=1e-4,
    )
