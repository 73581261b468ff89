"""Bounds are held against the clients that came, not against the size that a round was meant to be.

Every round here lost clients at the gate, as to NaN, or before it (`asked`).
"""

import math
from dataclasses import replace

import pytest
import torch

from entity.config.schema import ConfigError, load
from entity.defenses import DEFENSES, Undefended, UndefendedArgs
from entity.server import admit
from entity.server.contract import CleanData, Setting
from entity.server.streaming import Stream
from entity.updates import Aggregation

LOST = math.nan


def server(name, resources, **args):
    return DEFENSES[name](load(DEFENSES[name].hyperparameters, args), resources)


def answer(name, deltas, fixtures, asked=0, **args):
    """Return how far a round moves the global model of one parameter, and the answer."""
    make_updates, make_resources = fixtures
    updates = replace(make_updates(deltas, origin=[0.0]), asked=asked)
    found = admit(server(name, make_resources(updates), **args), updates)
    return found.weights.item(), found


@pytest.fixture
def fixtures(make_updates, make_resources):
    return make_updates, make_resources


def is_kept(found: Aggregation, reason: str) -> bool:
    verdicts = [v for v in found.verdicts if v.reason != "nonfinite update"]
    same = {(v.accepted, v.weight, v.reason) for v in verdicts} == {(False, 0.0, reason)}
    return same and found.diagnostics["kept_global"] == 1 and found.weights.tolist() == [0]


def test_the_trimmed_mean_of_nine_of_ten_is_not_the_plain_mean(fixtures):
    moved, found = answer("trimmed_mean", [1e6, *[0.0, 1.0] * 4, LOST], fixtures, beta=0.1)
    assert moved == pytest.approx(4 / 7)
    assert found.diagnostics["f"] == 1


def test_the_trimmed_mean_drops_as_many_as_may_have_come_of_those_asked(fixtures):
    """Two of twenty are hostile; a tenth of the nineteen that came would be one."""
    moved, found = answer("trimmed_mean", [1e6, 1e6, *[0.0] * 17], fixtures, asked=20, beta=0.1)
    assert (moved, found.diagnostics["f"]) == (0, 2)
    moved, _ = answer("trimmed_mean", [1e6, 1e6, *[0.0] * 17, LOST], fixtures, beta=0.1)
    assert moved == 0


def test_a_trimmed_mean_of_too_few_keeps_the_global_model(fixtures):
    _, found = answer("trimmed_mean", [5.0] * 4, fixtures, asked=20, beta=0.1)
    assert is_kept(found, "4 of 20 clients are left, and f = 2 needs n >= 2f + 1")


def test_a_plain_mean_that_was_asked_for_is_one(fixtures):
    assert answer("trimmed_mean", [1.0, 3.0], fixtures, beta=0.0)[0] == 2


def test_six_who_agree_are_not_reversed_by_a_theta_for_more(fixtures):
    moved, found = answer("rlr", [1.0] * 6 + [LOST] * 4, fixtures, theta=7)
    assert moved == 0
    assert is_kept(found, "6 of 10 clients are left, and theta = 7 needs as many to agree")
    assert answer("rlr", [1.0] * 7 + [LOST] * 3, fixtures, theta=7)[0] == 1


@pytest.mark.parametrize(
    ("name", "came", "f", "needs"),
    [
        ("krum", 8, 3, "n >= 2f + 3"),
        ("multikrum", 8, 3, "n >= 2f + 3"),
        ("bulyan", 10, 2, "n >= 4f + 3"),
        ("trimmed_mean", 4, 2, "n >= 2f + 1"),
    ],
)
def test_a_given_bound_that_those_who_came_break_keeps_the_global_model(
    name, came, f, needs, fixtures
):
    args = {"f": f, "beta": None} if name == "trimmed_mean" else {"f": f}
    rows = [float(i) for i in range(1, came + 1)]
    _, found = answer(name, [*rows, LOST], fixtures, **args)
    assert is_kept(found, f"{came} of {came + 1} clients are left, and f = {f} needs {needs}")
    assert answer(name, [*rows, 9.0], fixtures, **args)[0] != 0


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan", "trimmed_mean"])
@pytest.mark.parametrize("came", [3, 4, 5, 6])
def test_an_estimated_bound_is_never_zero(name, came, fixtures):
    """Regression: Multi-Krum of three or four and Bulyan of three to six were the plain mean."""
    args = {"beta": None} if name == "trimmed_mean" else {}
    honest = [1.0 + i / 100 for i in range(came - 1)]
    for hostile in (1e9, -1e9):
        moved, found = answer(name, [hostile, *honest], fixtures, asked=12, **args)
        assert 1 <= moved <= 1.1
        assert found.diagnostics["f"] >= 1


@pytest.mark.parametrize("name", ["krum", "multikrum", "bulyan"])
@pytest.mark.parametrize("came", [1, 2])
def test_of_two_neither_can_be_told_from_the_other(name, came, fixtures):
    _, found = answer(name, [5.0, 1.0][:came], fixtures, asked=9)
    condition = DEFENSES[name].condition
    assert is_kept(found, f"{came} of 9 clients are left, and f = 1 needs {condition}")


def test_multi_krum_averages_no_more_than_can_be_honest(fixtures, caplog):
    """Five of nine came, m = 5 was for nine: with it the hostile one is averaged, too."""
    moved, found = answer("multikrum", [1e9, *[1.0] * 4, *[LOST] * 4], fixtures, f=1, multi_k=5)
    assert moved == 1
    assert [v.accepted for v in found.verdicts] == [False] + [True] * 4 + [False] * 4
    assert "m = 5 of 5 clients is lowered to n - f = 4" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        *("flame", "freqfed", "deepsight", "rflbat", "multi_metrics", "alignins", "snowball"),
        "crowdguard",
    ],
)
def test_too_few_to_cluster_keep_the_global_model(name, fixtures):
    _, found = answer(name, [1.0, 2.0, 9e9, LOST, LOST], fixtures)
    assert is_kept(found, "3 of 5 clients are left and 4 are needed")


@pytest.mark.parametrize("name", list(DEFENSES))
def test_what_check_asks_of_a_round_is_asked_of_those_who_came(name, make_updates, make_resources):
    """No defense refuses a size in a configuration and takes it after dropouts."""
    entry = DEFENSES[name]
    updates = make_updates([[1.0]])
    if name in {"flare", "fltrust", "drop_plus"}:  # which need more than a round
        return
    args = {"features": "all"} if name == "foolsgold" else {}
    clean = CleanData(torch.zeros(8, 1, 4, 4), torch.zeros(8).long())
    defense = server(name, make_resources(updates, clean=clean), **args)
    for size in range(1, 8):
        if refuses(entry, size, args) and name not in {
            "droplet",
            "drop",
        }:  # whose rule for two is its own
            assert defense.too_few(size, 9)


def refuses(entry, size, args):
    try:
        entry.check(load(entry.hyperparameters, args), Setting(size, 100, (1, 32)))
    except ConfigError:
        return True
    return False


def test_it_is_said_once(fixtures, caplog):
    make_updates, make_resources = fixtures
    updates = make_updates([1.0, 2.0, 3.0])
    defense = server("rlr", make_resources(updates), theta=4)
    for _ in range(3):
        admit(defense, updates)
    said = "3 of 3 clients are left, and theta = 4 needs as many to agree"
    assert [record.getMessage() for record in caplog.records] == [
        f"RobustLearningRate: {said}, so the global model stays"
    ]


def test_an_aggregate_that_is_not_finite_keeps_the_global_model(fixtures):
    make_updates, make_resources = fixtures
    updates = make_updates([3e38, 3e38], origin=[0.0])
    resources = make_resources(updates, server_lr=2.0)
    assert is_kept(
        admit(Undefended(UndefendedArgs(), resources), updates), "the aggregate is not finite"
    )
    stream = Stream(Undefended(UndefendedArgs(), resources), 1, updates.global_state)
    for row in range(2):
        stream.accept(row, updates.state(row), 10)
    assert is_kept(stream.finish(), "the aggregate is not finite")


@pytest.mark.parametrize("count", [1e308, 2.0**54, -1.0, math.nan, math.inf])
def test_numbers_of_samples_that_cannot_be_are_refused(count, fixtures):
    """Regression: the sum of counts of 1e308 is infinite, and every share of it 0."""
    make_updates, make_resources = fixtures
    updates = make_updates([1.0, 3.0, 3.0], origin=[0.0])
    samples = torch.tensor([count, 10, 30], dtype=torch.float64)
    updates = replace(updates, num_samples=samples)
    resources = make_resources(updates, weighting="samples")
    found = admit(Undefended(UndefendedArgs(), resources), updates)
    stream = Stream(Undefended(UndefendedArgs(), resources), 1, updates.global_state)
    for row in range(3):
        stream.accept(row, updates.state(row), float(samples[row]))
    for done in (found, stream.finish()):
        assert done.weights.item() == 3
        assert done.verdicts[0].reason == "number of samples is not from 0 to 2**53"
        assert [v.weight for v in done.verdicts] == [0, 0.25, 0.75]
