import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.defenses.bulyan import Bulyan, BulyanArgs, bulyan_selection, mean_around_median
from entity.defenses.krum import squared_distances
from entity.defenses.median import by_coordinate


def bulyan(updates, resources, **args):
    return Bulyan(BulyanArgs(**args), resources).aggregate(updates)


def plain_bulyan(rows, f):
    """The paper in plain loops, on absolute row numbers."""
    n = len(rows)
    left, picked = list(range(n)), []
    while len(picked) < n - 2 * f:
        k = min(max(1, len(left) - f - 2), len(left) - 1)
        scores = {
            i: sum(sorted(((rows[i] - rows[j]) ** 2).sum() for j in left if j != i)[:k])
            for i in left
        }
        best = min(left, key=scores.__getitem__)
        left.remove(best)
        picked.append(best)
    out = np.empty(rows.shape[1])
    for column in range(rows.shape[1]):
        values = rows[picked, column]
        near = np.argsort(np.abs(values - np.median(values)), kind="stable")[: n - 4 * f]
        out[column] = values[near].mean()
    return picked, out


def test_the_hand_made_line_selects_1_to_5_and_answers_3(make_updates, make_resources):
    updates = make_updates([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0], origin=[0.0])
    answer = bulyan(updates, make_resources(updates), f=1)
    assert answer.weights.item() == 3.0
    assert [v.accepted for v in answer.verdicts] == [True] * 5 + [False] * 2
    assert [v.weight for v in answer.verdicts][5:] == [0, 0]
    assert all(np.isnan(v.weight) for v in answer.verdicts[:5])


@settings(max_examples=30, deadline=None)
@given(f=st.integers(0, 3), more=st.integers(0, 4), seed=st.integers(0, 2**32 - 1))
def test_it_is_the_paper_in_plain_loops(make_updates, make_resources, f, more, seed):
    rows = np.random.default_rng(seed).normal(size=(4 * f + 3 + more, 6))
    updates = make_updates(torch.from_numpy(rows), origin=torch.zeros(6))
    picked, expected = plain_bulyan(updates.weights.double().numpy(), f)
    answer = bulyan(updates, make_resources(updates), f=f)
    assert [v.client for v in answer.verdicts if v.accepted] == sorted(picked)
    np.testing.assert_allclose(answer.weights, expected, rtol=1e-5, atol=1e-6)


def test_positions_in_the_shrunk_list_are_not_taken_for_clients(make_updates):
    updates = make_updates([100.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.0], origin=[0.0])
    picked = bulyan_selection(squared_distances(updates), 1, 5, updates.client_ids)
    assert len(set(picked)) == 5
    assert 0 not in picked


def test_values_are_trimmed_after_the_selection():
    # n - 2f closest values, as in a benchmark, would keep all five.
    values = torch.tensor([[0.0, 1.0, 2.0, 3.0, 10.0]]).T
    assert by_coordinate(values, lambda v: mean_around_median(v, 3)).item() == 2.0
    assert by_coordinate(values, lambda v: mean_around_median(v, 5)).item() == np.float32(3.2)


def closest_by_sorting(values, count):
    """Mean of the closest values, by sorting the distances; what ties decide is left out."""
    centre = np.median(values)
    away = np.abs(values - centre)
    limit = np.sort(away)[count - 1]
    sure, tied = values[away < limit], values[away == limit]
    places = count - len(sure)
    low, high = sorted(tied)[:places], sorted(tied)[::-1][:places]
    return (sum(sure) + (sum(low) + sum(high)) / 2) / count


def test_the_farthest_value_of_a_window_does_not_decide_alone():
    # Distances to the median 0.25 are .75, .75, 0, .5 and 1.75.
    values = np.array([[-0.5, -0.5, 0.25, 0.75, 2.0]])
    mirrored = -values[:, ::-1]
    assert mean_around_median(values, 3)[0] == pytest.approx(0.5 / 3)
    assert mean_around_median(mirrored, 3)[0] == pytest.approx(-0.5 / 3)


def test_a_tie_of_both_sides_prefers_neither():
    assert mean_around_median(np.array([[-1.0, 0.0, 1.0]]), 2).tolist() == [0]
    assert mean_around_median(np.array([[-1.0, -1.0, 0.0, 1.0, 5.0]]), 2).tolist() == [0]


small = st.integers(-4, 4) | st.sampled_from([3e38, -3e38, 1e-40])


@settings(max_examples=200, deadline=None)
@given(row=st.lists(small, min_size=1, max_size=9), data=st.data())
def test_repeated_and_huge_values_count_by_their_distance(row, data):
    count = data.draw(st.integers(1, len(row)))
    values = np.sort(np.array([row], dtype=np.float32), axis=1)
    got = mean_around_median(values, count)[0]
    expected = closest_by_sorting(values[0].astype(np.float64), count)
    near = 1e-12 * float(np.abs(values).max())  # of sums of both signs
    assert got == pytest.approx(expected, rel=1e-9, abs=near)
    assert mean_around_median(-values[:, ::-1], count)[0] == pytest.approx(-got, abs=near)


def test_f_attackers_inside_the_cloud_cannot_leave_the_honest_range(make_updates, make_resources):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(9, 30))
    evil = np.tile(honest.mean(0), (2, 1))
    evil[:, 0] += 6  # one coordinate moved as far as Krum overlooks
    updates = make_updates(torch.from_numpy(np.vstack([honest, evil])))
    moved = bulyan(updates, make_resources(updates), f=2).weights - updates.global_weights
    assert honest[:, 0].min() <= moved[0] <= honest[:, 0].max()


def test_too_few_clients_for_f_answer_with_a_median(make_updates, make_resources):
    updates = make_updates([0.0, 1.0, 5.0, 100.0], origin=[0.0])
    answer = bulyan(updates, make_resources(updates), f=1)
    assert answer.diagnostics["condition_violated"] == 1.0
    assert answer.weights.item() == 0.5  # of the two that Krum picks
