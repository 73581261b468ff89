"""A client's view of the others' models: layer outputs against its own, and who stands out.

Rieger et al., "CrowdGuard: Federated Backdoor Detection in Federated Learning", NDSS 2024, arXiv
2210.07714: the Hidden Layer Backdoor Inspection Metric (Alg. 1), the significance tests (Alg. 4)
and the iterative pruning (Alg. 2). Arrays here are NumPy's, float64.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_LARGEST = 1e50
"""Bound of a ratio, of which the fourth power, the metric's square, is then finite."""


def hlbim(distances: Floats, own: int, labels: Sequence[int]) -> Floats:
    """Return the metric (n, classes x L) of n models, one row each, as one client sees them.

    The distance of a model's layer output from the global model's, over that of the client's own
    model on the same sample, minus 1, squared with its sign, and averaged over the samples of each
    label. Where the own model's distance is zero it tells nothing: the ratio is 1.

    Parameters
    ----------
    distances
        (n, S, L) of one kind, cosine or Euclidean.
    own
        Row of the client's own model.
    labels
        The S samples' labels; the classes are those that are among them.
    """
    reference = distances[own][None]
    with np.errstate(over="ignore"):
        ratios = np.divide(distances, reference, out=np.ones_like(distances), where=reference > 0)
    excess = np.minimum(ratios - 1, _LARGEST)
    squares = np.abs(excess) * excess
    found = np.asarray(labels)
    means = [squares[:, found == label].mean(1) for label in np.unique(found)]
    return np.concatenate(means, 1) if means else np.zeros((len(distances), 0))


def suspects(metric: Floats, own: int, p: float, whisker: float) -> list[int]:
    """Return the rows of the models that one client takes for poisoned, in increasing order.

    As long as the first principal component of the others' rows and of their median says that there
    are poisoned models among them, the smaller of two groups on it is left out; where it would then
    be more than half of the others, those of it that are farthest from the median.

    Parameters
    ----------
    metric
        (n, F) of one kind, as `hlbim` returns it.
    own
        The client's row, which it never suspects.
    p
        Level of the significance tests.
    whisker
        Reach of the box plot's whiskers, in interquartile ranges.
    """
    left = [row for row in range(len(metric)) if row != own]
    most, found = len(left) // 2, list[int]()
    while len(left) > 1 and len(found) < most:
        rows = metric[left]
        values, at_own = first_component(np.vstack([rows, np.median(rows, 0)]), metric[own])
        if not significant(values, p, whisker):
            break
        group = [place for place in smaller_group(values, at_own) if place < len(left)]
        away = np.abs(values - np.median(values))
        group.sort(key=lambda place: (-away[place], place))
        new = [left[place] for place in group][: most - len(found)]
        found += new
        if not new:
            break
        left = [row for row in left if row not in new]
    return sorted(found)


def first_component(rows: Floats, own: Floats) -> tuple[Floats, float]:
    """Return the first principal component of rows (m, F): (m,), and what `own` (F,) has of it.

    Columns are standardised, those that do not vary left out. The sign, which is arbitrary, is the
    one with which the farthest value from the median is below it.
    """
    spread, centre = rows.std(0), rows.mean(0)
    varies = spread > 1e-9 * np.abs(rows).max(0)
    if not varies.any():
        return np.zeros(len(rows)), 0.0
    scaled = (rows[:, varies] - centre[varies]) / spread[varies]
    direction = np.linalg.svd(scaled, full_matrices=False)[2][0]
    values = scaled @ direction
    away = values - np.median(values)
    sign = -1.0 if away[np.abs(away).argmax()] > 0 else 1.0
    at_own = (own[varies] - centre[varies]) / spread[varies] @ direction
    return sign * values, float(sign * at_own)


def significant(values: Floats, p: float, whisker: float) -> bool:
    """Say whether values (m,) are unlike those of benign models alone.

    Distances from the median above it and below it are compared by Student's t, Levene's and the
    Kolmogorov-Smirnov test; and no value may be an outlier of the box plot, or three standard
    deviations from the mean.

    Parameters
    ----------
    values
        One a model.
    p
        Level of the tests.
    whisker
        Reach of the box plot's whiskers, in interquartile ranges.
    """
    from scipy.stats import ks_2samp, levene, ttest_ind  # most of a second, only needed here

    away = values - np.median(values)
    upper, lower = away[away >= 0], -away[away < 0]
    if len(upper) > 1 and len(lower) > 1:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # groups without variance
            tests: tuple[Any, ...] = (ttest_ind, levene, ks_2samp)
            if any(float(test(upper, lower).pvalue) < p for test in tests):  # NaN is not
                return True
    low, high = np.percentile(values, [25, 75])
    reach = whisker * (high - low)
    if ((values < low - reach) | (values > high + reach)).any():
        return True
    return bool((np.abs(values - values.mean()) >= 3 * values.std()).any() and values.std() > 0)


def smaller_group(values: Floats, at_own: float) -> list[int]:
    """Return the places of the smaller of two single-linkage groups of values (m,), m above 1.

    On a line these are the two sides of the widest gap. Of two equal ones it is the one whose mean
    is farther from where the client's own model is.
    """
    order = np.argsort(values, kind="stable")
    cut = int(np.diff(values[order]).argmax()) + 1
    below, above = order[:cut], order[cut:]
    if len(below) != len(above):
        return min(below, above, key=len).tolist()
    return max(below, above, key=lambda side: abs(values[side].mean() - at_own)).tolist()
