import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

from entity.defenses.median import by_coordinate, middle
from entity.defenses.trimmed_mean import TrimmedMean, TrimmedMeanArgs, trimmed_mean


def trim(updates, resources, **args):
    return TrimmedMean(TrimmedMeanArgs(**args), resources).aggregate(updates)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_outlier_of_1e12_leaves_no_trace_where_sum_minus_extremes_loses_all_digits(dtype):
    values = np.array([[0, 1, 2, 3, 1e12]], dtype=dtype)
    assert trimmed_mean(values, 1).item() == 2.0
    as_public_codes_do = values.sum(dtype=np.float32) - values.max() - values.min()
    assert as_public_codes_do / 3 != 2.0


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 12),
    beta=st.sampled_from([0.0, 0.1, 0.2, 0.3, 0.45, 0.5]),
    seed=st.integers(0, 2**32 - 1),
)
def test_it_is_scipys_trimmed_mean(make_updates, make_resources, n, beta, seed):
    rows = np.random.default_rng(seed).normal(size=(n, 5))
    updates = make_updates(torch.from_numpy(rows))
    got = trim(updates, make_resources(updates), beta=beta).weights
    share = max(beta, 1 / n) if beta and n > 2 else beta  # one at either end at the least
    if share * n < (n - 1) // 2 + 1:  # scipy refuses to trim everything
        expected = trim_mean(updates.weights.double().numpy(), share + 1e-12, axis=0)
        np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-7)


def test_a_bound_of_f_trims_f_at_either_end(make_updates, make_resources):
    updates = make_updates([0.0, 1.0, 2.0, 6.0, 100.0, -100.0, 7.0], origin=[0.0])
    resources = make_resources(updates, malicious_count=1, federation_size=7)
    assert trim(updates, resources, beta=None, f=2).weights.item() == 3.0
    assert trim(updates, resources, beta=None, f="oracle").weights.item() == pytest.approx(3.2)
    assert trim(updates, resources, beta=0.3).weights.item() == 3.0


def test_the_largest_possible_bound_is_the_median(make_updates, make_resources):
    rows = torch.randn(10, 50, generator=torch.Generator().manual_seed(1))
    updates = make_updates(rows)
    got = trim(updates, make_resources(updates), beta=None).weights
    assert torch.equal(got, by_coordinate(updates.weights, middle))


def test_a_round_that_lost_clients_is_trimmed_as_far_as_it_goes(make_updates, make_resources):
    updates = make_updates([0.0, 1.0, 50.0], origin=[0.0])
    answer = trim(updates, make_resources(updates), beta=None, f=4)
    assert answer.weights.item() == 1.0
    assert answer.diagnostics["condition_violated"] == 1.0


def test_b_attackers_cannot_leave_the_honest_range(make_updates, make_resources):
    rng = np.random.default_rng(3)
    honest = rng.normal(size=(8, 20))
    for evil in (1e9, -1e9):
        updates = make_updates(torch.from_numpy(np.vstack([honest, np.full((2, 20), evil)])))
        moved = trim(updates, make_resources(updates), beta=0.2).weights - updates.global_weights
        assert (moved.numpy() <= honest.max(0) + 1e-6).all()
        assert (moved.numpy() >= honest.min(0) - 1e-6).all()
