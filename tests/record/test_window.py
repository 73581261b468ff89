"""Which rounds a mean is of, and whether the curve still rises there; by hand and by SciPy."""

import numpy as np
import pytest
from scipy.stats import linregress

from entity.record.window import LAST, RISE, Window, remark, span, still_rises

LEVEL_CURVE = [0.9, 0.91, 0.9, 0.91, 0.9, 0.91]


@pytest.mark.parametrize(
    ("values", "rises"),
    [
        # Slope 0.16 / 5 = 0.032, rise 0.096; residuals -2, 6, -6, 2 thousandths: squares 8e-5,
        # error (8e-5 / 2 / 5) ** 0.5 = 0.00283, t = 11.3 with 2 degrees of freedom, p = 0.004.
        ([0.10, 0.14, 0.16, 0.20], True),
        # Slope 0.05, rise 0.2; squares 0.147, error 0.07, t = 0.71, p = 0.26 with 3 degrees.
        ([0.1, 0.5, 0.2, 0.6, 0.3], False),
        # A line without any error: as steep as one likes, but more than 2 points in all.
        ([0.0, 0.25, 0.5], True),
        ([0.5, 0.509, 0.518], False),  # 1.8 points
        ([0.5, 0.512, 0.524], True),  # 2.4 points
        ([0.5, 0.25, 0.0], False),  # falls
        ([0.7] * 10, False),
        ([1.0] * 9 + [0.0], False),
        (LEVEL_CURVE, False),
        ([0.1, 0.9], False),  # two points are always on a line
        ([0.3], False),
        ([], False),
        # One jump at the end is no slope: 0.1 * 4.5 / 82.5 = 0.00545, rise 0.049; t = 1.74 with
        # 8 degrees, where 1.86 would be needed.
        ([0.5] * 9 + [0.6], False),
        # A logistic that has ended, and one that has not.
        ([0.999, 1.0, 0.999, 1.0, 1.0, 1.0, 0.999, 1.0, 1.0, 1.0], False),
        ([0.1, 0.12, 0.2, 0.3, 0.45, 0.6, 0.72, 0.8, 0.85, 0.87], True),
    ],
)
def test_whether_a_curve_still_rises(values, rises):
    assert still_rises(values) is rises


def test_scipy_says_the_same():
    rng = np.random.default_rng(4)
    said = set()
    for _ in range(500):
        n = int(rng.integers(3, 11))
        values = rng.uniform(-0.05, 0.05) * np.arange(n) + rng.normal(0.5, 0.05, n)
        fit = linregress(np.arange(n), values, alternative="greater")
        expected = bool(fit.pvalue < 0.05 and fit.slope * (n - 1) > RISE)
        assert still_rises(values.tolist()) is expected
        said.add(expected)
    assert said == {True, False}


def rounds_of(mtas, asrs=None):
    asrs = asrs or [None] * len(mtas)
    return [{"mta": mta, "asr": asr} for mta, asr in zip(mtas, asrs, strict=True)]


def test_a_window_counts_what_is_there():
    assert Window.of(rounds_of([0.5] * 8)) == Window(8, 8, 8)
    assert Window.of(rounds_of([0.5] * 40)) == Window(LAST, 40, 40)
    assert Window.of(rounds_of([None, None, 0.5] * 10 + [None])) == Window(10, 10, 31)
    assert Window.of([]) == Window(0, 0, 0)
    steep = [i / 10 for i in range(10)]
    assert Window.of(rounds_of([0.5] * 10, steep)) == Window(10, 10, 10, ("asr",))
    assert Window.of(rounds_of(steep)).rising == ("mta",)
    # Only the window is looked at: what rose before it has come to rest.
    assert Window.of(rounds_of(steep + [0.9] * 10)).rising == ()


def test_a_summary_tells_of_its_window():
    window = Window(10, 11, 31, ("mta", "asr"))
    assert Window.read({"window": window.as_json()}) == window
    for damaged in ({}, {"window": 3}, {"window": {"taken": 3}}, {"window": {"taken": "3"}}):
        assert Window.read(damaged) is None
    odd = {"taken": 3, "evaluated": 3, "rounds": 3, "rising": "asr"}
    assert Window.read({"window": odd}) == Window(3, 3, 3)


def test_captions_say_how_many_rounds_there_were():
    assert span([Window(1, 1, 1)]) == "last 1 of 1 rounds"
    assert span([Window(10, 40, 40)] * 2) == "last 10 of 40 rounds"
    assert span([Window(10, 10, 30), Window(2, 2, 2)]) == "last 2 to 10 of 2 to 10 evaluated rounds"
    unknown = "last 10 evaluated rounds, or as many as there are"
    assert span([]) == span([Window(8, 8, 8), None]) == span([Window(0, 0, 4)]) == unknown


def test_a_warning_names_the_runs_and_not_all_of_many():
    rising = Window(10, 10, 10, ("asr",))
    both = Window(10, 10, 10, ("mta", "asr"))
    said = remark([("a", rising), ("b", None), ("c", both)])
    assert said.endswith("below where it ends: ASR of a, c; MTA of c.")
    assert remark([(str(i), rising) for i in range(8)]).endswith("ASR of 0, 1, 2, 3, 4 and 3 more.")
    assert remark([("a", Window(10, 10, 10)), ("b", None)]) == ""
