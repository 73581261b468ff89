import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.decomposition import PCA

from entity.config.schema import ConfigError
from entity.defenses.rflbat import (
    Rflbat,
    RflbatArgs,
    alignment,
    principal_plane,
    relative_distances,
)
from entity.server.contract import Setting


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attackers(count: int) -> torch.Tensor:
    rows = 0.1 * torch.randn(count, 20, generator=generator(1))
    rows[:, 0] += 10
    return rows


def diverse(count: int) -> torch.Tensor:
    return 0.1 * torch.randn(count, 20, generator=generator(2))


def run(updates, resources, **args):
    return Rflbat(RflbatArgs(**args), resources).aggregate(updates)


def kept(answer) -> list:
    return [verdict.client for verdict in answer.verdicts if verdict.accepted]


def test_the_plane_is_that_of_a_pca_of_the_rows():
    rows = torch.randn(9, 30, generator=generator()).double()
    judge = PCA(2).fit_transform(rows.numpy())
    found = principal_plane(rows @ rows.T).numpy()
    np.testing.assert_allclose(np.abs(found), np.abs(judge), atol=1e-9)
    np.testing.assert_allclose(pdist(found), pdist(judge), atol=1e-9)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_or_equal_rows_have_a_plane(n):
    assert principal_plane(torch.ones(n, n).double()).tolist() == [[0, 0]] * n


def test_alignment_is_the_median_of_mean_cosines_to_the_others():
    cosines = torch.tensor([[1, 0.2, 0.4], [0.2, 1, 0.8], [0.4, 0.8, 1]]).double()
    assert alignment(cosines, [0, 1, 2]) == pytest.approx(0.5)  # of .3, .5 and .6
    assert alignment(cosines, [1, 2]) == pytest.approx(0.8)
    assert alignment(cosines, [1]) == float("inf")


def test_distances_are_in_medians_and_equal_points_have_none():
    assert relative_distances(torch.zeros(4, 2)).tolist() == [0] * 4
    lonely = torch.tensor([[0.0]] * 4 + [[1.0]])
    assert relative_distances(lonely).tolist() == [1, 1, 1, 1, 4]


def test_the_diverse_group_is_kept_and_the_aligned_one_refused(make_updates, make_resources):
    updates = make_updates(torch.cat([attackers(4), diverse(6)]))
    answer = run(updates, make_resources(updates))
    assert kept(answer) == [4, 5, 6, 7, 8, 9]
    assert {verdict.reason for verdict in answer.verdicts[:4]} == {"in a more aligned cluster"}
    assert answer.diagnostics["clusters"] == 2
    torch.testing.assert_close(answer.weights, updates.weights[4:].mean(0))


def test_cosines_are_those_of_the_same_clients_after_the_filtering(make_updates, make_resources):
    """Regression: a port looks cosines up by the position among those that passed."""
    rows = torch.zeros(14, 20)
    rows[0, 1] = 5e4
    rows[1::2] = attackers(7)
    rows[2::2] = diverse(6)  # by position, each group would be judged by the other's rows
    updates = make_updates(rows)
    answer = run(updates, make_resources(updates))
    assert answer.verdicts[0].reason == "far from the others"
    assert kept(answer) == [2, 4, 6, 8, 10, 12]


def test_an_outlier_within_the_chosen_cluster_is_refused(make_updates, make_resources):
    rows = 0.1 * torch.randn(12, 2, generator=generator(3))
    rows[11] = torch.tensor([0.0, 1.5])
    updates = make_updates(rows)
    answer = run(updates, make_resources(updates), kmax=1)
    assert kept(answer) == list(range(11))
    assert answer.verdicts[11].reason == "far from its cluster"
    assert 4 < answer.verdicts[11].score < 10


def test_two_clients_that_are_left_are_averaged(make_updates, make_resources):
    updates = make_updates([[1.0, 0], [0, 1.0]])
    answer = run(updates, make_resources(updates))
    assert kept(answer) == [0, 1]
    torch.testing.assert_close(answer.weights, updates.weights.mean(0))


def test_small_rounds_are_refused_with_the_mend():
    with pytest.raises(ConfigError, match=r"rflbat needs at least 4 clients .* raise it"):
        Rflbat.check(RflbatArgs(), Setting(3, 0, (1, 4)))
