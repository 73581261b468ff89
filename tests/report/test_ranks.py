"""Mean ranks, Friedman's and Nemenyi's tests: against scipy, and tables of Demsar's paper."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import f, friedmanchisquare, rankdata

from entity.report.ranks import (
    Ranking,
    critical_difference,
    friedman_chi_p,
    friedman_p,
    mean_ranks,
    rank,
)

RNG = np.random.default_rng(3)


@pytest.mark.parametrize("tied", [False, True])
def test_mean_ranks_and_p_are_scipys(tied):
    scores = RNG.normal(size=(9, 5)) + np.arange(5) / 3
    if tied:
        scores = scores.round()
    np.testing.assert_allclose(mean_ranks(scores), rankdata(scores, axis=1).mean(0))
    chi = friedmanchisquare(*scores.T).statistic
    statistic = 8 * chi / (9 * 4 - chi)
    assert friedman_p(scores) == pytest.approx(f.sf(statistic, 4, 32), rel=1e-9)
    plain = friedmanchisquare(*scores.T).pvalue
    assert friedman_chi_p(scores) == pytest.approx(plain, rel=1e-9)
    found = rank({row: dict(zip("abcde", each, strict=True)) for row, each in enumerate(scores)})
    assert found is not None
    assert found.chi_p == pytest.approx(plain, rel=1e-9)


def test_demsars_example():
    """Table 6 of the paper: mean ranks 3.143, 2.000, 2.893, 1.964 of 4 methods on 14 data sets."""
    auc = np.array(
        [
            [0.763, 0.768, 0.771, 0.798],
            [0.599, 0.591, 0.590, 0.569],
            [0.954, 0.971, 0.968, 0.967],
            [0.628, 0.661, 0.654, 0.657],
            [0.882, 0.888, 0.886, 0.898],
            [0.936, 0.931, 0.916, 0.931],
            [0.661, 0.668, 0.609, 0.685],
            [0.583, 0.583, 0.563, 0.625],
            [0.775, 0.838, 0.866, 0.875],
            [1.000, 1.000, 1.000, 1.000],
            [0.940, 0.962, 0.965, 0.962],
            [0.619, 0.666, 0.614, 0.669],
            [0.972, 0.981, 0.9751, 0.975],
            [0.957, 0.978, 0.946, 0.970],
        ]
    )
    means = mean_ranks(-auc)
    np.testing.assert_allclose(means, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert critical_difference(4, 14) == pytest.approx(2.569 * math.sqrt(20 / 84), abs=1e-3)


def test_the_extremes():
    alike = np.ones((4, 3))
    assert friedman_p(alike) == 1.0
    assert mean_ranks(alike).tolist() == [2, 2, 2]
    # Four blocks of one mind: 6 orders of the first, and only that one in each of the others.
    assert friedman_p(np.tile([1.0, 2.0, 3.0], (4, 1))) == pytest.approx(1 / 6**3)
    assert friedman_p(np.tile([1.0, 2.0, 3.0], (2, 1))) == pytest.approx(1 / 6)


@pytest.mark.parametrize("row", [[0, 0, 1], [0, 0, 0, 1], [0, 1, 1, 2], [0, 1, 2]])
@pytest.mark.parametrize("blocks", [2, 3])
def test_of_one_mind_with_ties_p_is_that_of_all_permutations(row, blocks):
    orders = list(set(itertools.permutations(row)))
    alike = [draw for draw in itertools.product(orders, repeat=blocks) if len({*draw}) == 1]
    exact = len(alike) / len(orders) ** blocks
    assert friedman_p(np.array([row] * blocks, dtype=float)) == pytest.approx(exact)


def test_methods_of_few_blocks_and_blocks_without_a_method_are_left_out():
    whole = {f"attack {i}": {"a": 0.0, "b": 0.5, "c": 1.0} for i in range(12)}
    scores = {**whole, "odd": {"a": 0.9, "b": 0.1}, "rare": {**whole["attack 0"], "d": 0.0}}
    found = rank(scores)
    assert found is not None
    assert (found.methods, found.ranks, found.blocks) == (("a", "b", "c"), (1.0, 2.0, 3.0), 13)
    assert found.left_out == ("d",)
    assert found.differ
    assert found.critical == pytest.approx(2.3437 * math.sqrt(12 / 78), abs=1e-3)  # 0.92
    assert found.as_good == ("a",)


def test_the_largest_whole_table_is_ranked():
    """A few methods that more blocks have do not push out the many of fewer blocks."""
    everybody = {name: float(place) for place, name in enumerate("abcdefghijkl")}
    few = {name: everybody[name] for name in "abc"}
    scores = {**{f"all {i}": everybody for i in range(3)}, **{f"few {i}": few for i in range(5)}}
    found = rank(scores)
    assert found is not None
    assert (len(found.methods), found.blocks, found.left_out) == (12, 3, ())
    found = rank({**scores, **{f"more {i}": few for i in range(5)}})
    assert found is not None
    assert (found.methods, found.blocks) == (("a", "b", "c"), 13)
    assert found.left_out == tuple("defghijkl")


def test_without_a_significant_difference_all_are_as_good():
    scores = {0: {"a": 0, "b": 1, "c": 2}, 1: {"a": 2, "b": 1, "c": 0}}
    found = rank(scores)
    assert found is not None
    assert not found.differ
    assert set(found.as_good) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("ranks", "p", "said"),
    [
        ((1.2, 1.9, 2.9), 0.2, "no significant difference (p = 0.2)"),
        ((1.2, 2.4, 2.4), 0.01, "A is first (p = 0.01), and significantly better than all others"),
        ((1.2, 1.9, 2.9), 1e-6, "A is first (p < 0.0001); not significantly worse: b"),
        ((1.5, 1.5, 3.0), 0.01, "A and b are first (p = 0.01), and significantly better than all "
        "others"),
        ((1.9, 1.9, 1.9), 0.01, "A, b and c are first (p = 0.01), and significantly better than "
        "all others"),
    ],
)  # fmt: skip
def test_what_is_said_of_ranks_names_ties(ranks, p, said):
    assert Ranking(("a", "b", "c"), ranks, 10, p, 1.0).said({"a": "A"}) == said


def test_too_few_blocks_tell_no_two_apart_and_nobody_is_called_as_good():
    """36 methods in three blocks differ by 33.01 ranks, and the first is 30.33 from the last."""
    methods = tuple(f"m{place}" for place in range(36))
    ranks = (3.67, *[18.0] * 34, 34.0)
    found = Ranking(methods, ranks, 3, 3e-6, critical_difference(36, 3))
    assert not found.tells
    assert found.said() == (
        "the ranks are not all equal (p < 0.0001), but too few blocks to tell any two apart: "
        "Nemenyi's critical difference is 33.01, and the first and the last are 30.33 apart"
    )
    wide = Ranking(methods, (1.0, *[18.0] * 34, 36.0), 3, 3e-6, critical_difference(36, 3))
    assert wide.tells
    assert wide.said() == "m0 is first (p < 0.0001); significantly worse is only: m35"


@pytest.mark.parametrize(
    "scores",
    [
        {},
        {0: {"a": 1.0, "b": 2.0}, 1: {"a": 1.0, "b": 2.0}},
        {0: {"a": 1.0, "b": 2.0, "c": 3.0}},
        {0: {"a": 1.0}, 1: {"b": 1.0}, 2: {"c": 1.0}},
    ],
)
def test_where_there_is_nothing_to_rank(scores):
    assert rank(scores) is None
