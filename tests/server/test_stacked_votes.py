import numpy as np
import pytest
from sklearn.cluster import DBSCAN, AgglomerativeClustering

from entity.client.ballots import false_ballot
from entity.server.stacked_votes import decide_by

HONEST, LIARS, N = list(range(11)), list(range(11, 20)), 20
"""The paper's default: 20 clients, 9 of them malicious."""


def truth() -> np.ndarray:
    return np.array([row in HONEST for row in range(N)])


def votes(kind: str) -> np.ndarray:
    """Honest clients are right, and liars say what `kind` says, or the truth with `none`."""
    cast = [truth()] * len(HONEST)
    for row in LIARS:
        lie = false_ballot(kind, row, LIARS, N)  # type: ignore[arg-type]
        cast.append(truth() if lie is None else lie.numpy())
    return np.array(cast)


def missing(kind: str, wrong: dict[int, int]) -> np.ndarray:
    """The same, but honest voter i is wrong about model `wrong[i]`."""
    cast = votes(kind)
    for voter, model in wrong.items():
        cast[voter, model] = ~cast[voter, model]
    return cast


TABLE_FIVE = {
    "default": votes("none"),
    "all benign, one overlooked": missing("accept", {0: 12}),
    "all benign, two overlooked": missing("accept", {0: 12, 1: 15}),
    "two alarms": missing("none", {0: 3, 1: 3}),
    "split": votes("split"),
    "inverted (Sect. IV-C)": votes("invert"),
}


@pytest.mark.parametrize("name", TABLE_FIVE)
def test_table_five_of_the_paper(name):
    decision = decide_by(TABLE_FIVE[name])
    assert decision.benign.tolist() == truth().tolist()
    assert decision.agreed >= 9


def test_a_majority_vote_would_let_a_model_in_that_the_clusters_keep_out():
    """Nine who accept all and two honest ones who overlook one are more than half of twenty."""
    cast = missing("accept", {0: 12, 1: 12})
    assert cast[:, 12].mean() > 0.5
    assert not decide_by(cast).benign[12]


def reference(cast: np.ndarray) -> np.ndarray:
    """The authors' way, by scikit-learn."""
    labels = AgglomerativeClustering(n_clusters=2, linkage="single").fit_predict(cast * 1.0)
    majority = np.flatnonzero(labels == np.bincount(labels).argmax())
    groups = DBSCAN(eps=0.5, min_samples=1).fit_predict(cast[majority] * 1.0)
    return cast[majority[np.flatnonzero(groups == np.bincount(groups).argmax())[0]]]


@pytest.mark.parametrize("seed", range(20))
def test_the_decision_is_scikit_learns_stacked_clustering(seed):
    rng = np.random.default_rng(seed)
    cast = np.array([truth()] * 11 + [rng.random(N) < 0.5] * 9)
    for voter in (0, 1, 2):
        cast[voter, rng.integers(N)] ^= True
    order = rng.permutation(N)
    assert decide_by(cast[order]).benign.tolist() == reference(cast[order]).tolist()


def test_equal_clusters_and_ballots_are_decided_by_what_is_in_them():
    a, b, c = [1, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
    cast = np.array([b, c, a, a], bool)  # two against two: those agree better
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]):
        assert decide_by(cast[order]).benign.tolist() == [bool(x) for x in a]
    x, y, z = [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]
    cast = np.array([x, z, y], bool)  # one each: the one in the middle
    cast = np.vstack([cast, ~cast[:1]])
    for order in ([0, 1, 2, 3], [1, 0, 3, 2]):
        assert decide_by(cast[order]).benign.tolist() == [True, True, True, False]


@pytest.mark.parametrize("v", [1, 2, 5])
def test_all_alike_are_their_own_decision(v):
    decision = decide_by(np.array([[True, False, True]] * v))
    assert decision.benign.tolist() == [True, False, True]
    assert 1 <= decision.agreed <= decision.majority <= v
