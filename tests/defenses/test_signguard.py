import numpy as np
import pytest
import torch
from sklearn.cluster import MeanShift, estimate_bandwidth

from entity.config.schema import ConfigError, load
from entity.defenses.signguard import (
    SignGuard,
    SignGuardArgs,
    largest_cluster,
    sign_features,
    similarity,
)
from entity.server.contract import Setting

ALL_OF_THEM = {"share": 1.0}


def run(updates, make_resources, **args):
    return SignGuard(SignGuardArgs(**args), make_resources(updates)).aggregate(updates)


def kept(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def honest(n: int = 10, size: int = 200, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 0.1 * rng.normal(size=(n, size)) + 0.05


def test_the_sign_features_by_hand():
    rows = torch.tensor([[1.0, 2, 3, 0], [-1, -1, 0, 0], [1, -1, -1, -1]])
    # positive 3, 0, 1; zero 1, 2, 0; negative 0, 2, 3
    expected = [[1, 0.5, 0], [0, 1, 2 / 3], [1 / 3, 0, 1]]
    np.testing.assert_allclose(sign_features(rows), expected)
    assert sign_features(torch.ones(2, 3)).tolist() == [[1, 0, 0]] * 2


def test_by_hand_norms_filter_and_clip(make_updates, make_resources):
    """The median norm is 2: allowed is 0.25 to 6, and what is above 2 is clipped to it."""
    sizes = [2.0, 2.0, 2.0, 4.0, 6.0, 0.25, 7.0, 0.125]
    updates = make_updates([[size, 0.0] for size in sizes])
    answer = run(updates, make_resources, low=0.125, share=1.0)
    assert kept(answer) == [0, 1, 2, 3, 4, 5]
    assert answer.diagnostics == {"clip": 2, "unusual_norms": 2}
    moved = answer.weights - updates.global_weights
    assert moved.tolist() == pytest.approx([(2 * 5 + 0.25) / 6, 0], abs=1e-6)
    assert [v.weight for v in answer.verdicts[:6]] == pytest.approx(
        [1 / 6, 1 / 6, 1 / 6, 1 / 12, 1 / 18, 1 / 6]
    )
    assert answer.verdicts[6].reason == answer.verdicts[7].reason == "unusual norm"


def test_turned_signs_are_refused_however_usual_the_norm(make_updates, make_resources):
    rows = honest()
    rows[3] = -rows[3]
    rows[7] = np.abs(rows[7])
    answer = run(make_updates(rows), make_resources, **ALL_OF_THEM)
    assert kept(answer) == [0, 1, 2, 4, 5, 6, 8, 9]
    assert answer.verdicts[3].reason == "unusual signs"
    assert answer.diagnostics["unusual_norms"] == 0


def test_many_small_lies_within_the_spread_show_in_the_signs(make_updates, make_resources):
    """ALIE: the mean less 0.7 deviations, which turns the sign of most entries."""
    rows = honest(14, 2000)
    rows[:4] = rows[4:].mean(0) - 0.7 * rows[4:].std(0)
    answer = run(make_updates(rows), make_resources)
    assert kept(answer) == list(range(4, 14))


def test_the_cluster_is_scikit_learns_of_the_authors_settings():
    rng = np.random.default_rng(1)
    points = np.vstack([0.02 * rng.normal(size=(12, 3)), 0.02 * rng.normal(size=(8, 3)) + 0.5])
    width = estimate_bandwidth(points, quantile=0.5, n_samples=50)
    labels = MeanShift(bandwidth=width, bin_seeding=True, cluster_all=False).fit(points).labels_
    biggest = np.argmax(np.bincount(labels[labels >= 0]))
    found = largest_cluster(torch.from_numpy(points), range(20))
    assert found.tolist() == (labels == biggest).tolist()
    assert found.tolist() == [True] * 12 + [False] * 8


def test_features_that_coincide_are_no_failure():
    """Regression: an estimated bandwidth of zero is refused by scikit-learn."""
    points = torch.tensor([[0.5, 0.0, 1.0]] * 5 + [[1.0, 0.0, 0.2]] * 4)
    assert largest_cluster(points, range(9)).tolist() == [True] * 5 + [False] * 4
    assert largest_cluster(points[:5], range(5)).all()


def test_parameters_are_drawn_from_the_whole_model(make_updates, make_resources):
    """The liar's signs are turned in the second half alone: one window in two would miss it."""
    rows = np.abs(honest(8, 400))
    rows[2, 200:] *= -1
    resources = make_resources(make_updates(rows))
    for number in range(1, 11):
        updates = make_updates(rows, round=number)
        assert kept(SignGuard(SignGuardArgs(), resources).aggregate(updates)) == [
            0,
            1,
            *range(3, 8),
        ]


def test_idle_clients_are_answered_with_numbers(make_updates, make_resources):
    """Regression: the authors' code divides by their norms."""
    rows = honest(8)
    rows[1] = 0
    answer = run(make_updates(rows), make_resources)
    assert answer.weights.isfinite().all()
    assert answer.verdicts[1].reason == "unusual norm"
    rows[:5] = 0
    answer = run(make_updates(rows), make_resources)
    assert torch.equal(answer.weights, make_updates(rows).global_weights)
    assert kept(answer) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_among_few_only_norms_are_looked_at(make_updates, make_resources, n):
    rows = honest(n)
    rows[0] = -np.abs(rows[0])
    assert kept(run(make_updates(rows), make_resources)) == list(range(n))


def test_where_nobody_passes_both_the_global_model_stays(make_updates, make_resources):
    """The usual signs are of those with unusual norms."""
    ones = np.ones(40)
    rows = np.array([ones * 9, ones * 9.1, ones * 0.01, -ones, np.where(ones.cumsum() % 2, 1, -1)])
    updates = make_updates(rows)
    answer = run(updates, make_resources, **ALL_OF_THEM)
    assert kept(answer) == []
    assert torch.equal(answer.weights, updates.global_weights)


def test_the_cosine_feature_by_hand(make_updates):
    updates = make_updates([[1, 0], [0.6, 0.8], [0, 1], [-1, 0]])
    # To the last aggregate (1, 0): 1, 0.6, 0 and -1, of which the median is 0.3.
    found = similarity(updates, torch.tensor([2.0, 0.0]), "cosine")
    np.testing.assert_allclose(found, [0.2, 0.2, 0, 0], atol=1e-7)
    against = similarity(updates, torch.tensor([-1.0, -1.0]), "cosine")
    np.testing.assert_allclose(against, [0.2] * 4)
    # Without one, the median of those to all, oneself included: 0.6, 0.6, 0.6 and -1.
    first = similarity(make_updates([[1, 0], [1, 0], [0.6, 0.8], [-1, 0]]), None, "cosine")
    np.testing.assert_allclose(first, [0.2, 0.2, 0.2, 0], atol=1e-7)


def test_the_distance_feature_by_hand(make_updates):
    updates = make_updates([[1.0, 0], [1.2, 0], [0.8, 0], [1.0, 1.0], [9.0, 0]])
    # From (0, 0): 1, 1.2, 0.8, 1.41 and 9; the median 1.2, of which 1.1 are 1.32.
    found = similarity(updates, torch.zeros(2), "distance")
    np.testing.assert_allclose(found, [0, 0, 0, 0.2, 0.2])
    first = similarity(updates, None, "distance")
    np.testing.assert_allclose(first, [0, 0, 0, 0.2, 0.2])


@pytest.mark.parametrize("feature", ["cosine", "distance"])
def test_a_lie_with_usual_signs_and_norm_shows_in_the_fourth_feature(
    feature, make_updates, make_resources
):
    """Entries of the honest in another order have their norm and their signs."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=300)
    common += np.sign(common)  # so that noise turns no sign
    resources = make_resources(make_updates(np.zeros((9, 300))))
    server = SignGuard(SignGuardArgs(feature=feature, share=1.0), resources)
    plain = SignGuard(SignGuardArgs(share=1.0), resources)
    for number in (1, 2, 3):
        rows = common + 0.05 * rng.normal(size=(9, 300))
        rows[4] = rng.permutation(rows[4])
        updates = make_updates(rows, round=number)
        assert 4 in kept(plain.aggregate(updates))
        assert 4 not in kept(server.aggregate(updates))
    assert server.last is not None
    cosine = torch.nn.functional.cosine_similarity(server.last, torch.from_numpy(common), dim=0)
    assert cosine > 0.99


@pytest.mark.parametrize("feature", ["cosine", "distance"])
@pytest.mark.parametrize("far", [1e3, 1e16, 3e38])
def test_the_fourth_feature_bears_any_length(feature, far, make_updates, make_resources):
    rows = honest(9)
    rows[0] = far
    resources = make_resources(make_updates(rows), server_lr=0.5)
    server = SignGuard(SignGuardArgs(feature=feature), resources)
    for number in (1, 2):
        answer = server.aggregate(make_updates(rows, round=number))
        assert answer.weights.isfinite().all()
        assert not answer.verdicts[0].accepted
        assert len(kept(answer)) >= 4


def test_it_goes_on_from_a_saved_state(make_updates, make_resources):
    rounds = [make_updates(honest(8, seed=seed), round=seed) for seed in (1, 2, 3)]
    resources = make_resources(rounds[0], server_lr=0.5)
    args = SignGuardArgs(feature="cosine")
    whole, resumed = SignGuard(args, resources), SignGuard(args, resources)
    for updates in rounds[:2]:
        whole.aggregate(updates)
    resumed.load_state_dict(whole.state_dict())
    expected, got = whole.aggregate(rounds[2]), resumed.aggregate(rounds[2])
    assert torch.equal(expected.weights, got.weights)
    assert expected.verdicts == got.verdicts


def test_bounds_that_refuse_the_median_and_small_rounds_are_refused():
    for args in ({"low": 1.5}, {"high": 0.9}, {"share": 0.0}):
        with pytest.raises(ConfigError, match=next(iter(args))):
            load(SignGuardArgs, args)
    with pytest.raises(ConfigError, match="signguard needs at least 4 clients"):
        SignGuard.check(SignGuardArgs(), Setting(3, 0, (1, 4)))
