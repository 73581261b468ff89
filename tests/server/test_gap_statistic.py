import pytest
import torch
from sklearn.cluster import KMeans

from entity.server.gap_statistic import gap_clusters, k_means


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(centres, each: int = 20, spread: float = 0.3) -> torch.Tensor:
    noise = torch.randn(len(centres), each, 2, generator=generator(5)).double()
    return (torch.tensor(centres).double()[:, None] + spread * noise).flatten(0, 1)


def test_k_means_is_as_good_as_scikit_learns():
    points = blobs([(0, 0), (4, 1), (1, 5), (5, 6)], spread=1.0)
    for k in (1, 2, 3, 4, 7):
        judge = KMeans(k, n_init=5, random_state=0).fit(points.numpy()).inertia_
        dispersion, labels = k_means(points[None].repeat(2, 1, 1), k, generator())
        assert dispersion.tolist() == pytest.approx([judge] * 2, rel=0.05)
        parts = [points[labels[0] == label] for label in labels[0].unique()]
        own = sum(float(((part - part.mean(0)) ** 2).sum()) for part in parts)
        assert dispersion[0].item() == pytest.approx(own)


@pytest.mark.parametrize("centres", [[(0, 0)], [(0, 0), (9, 0)], [(0, 0), (9, 0), (4, 9)]])
def test_the_gap_statistic_finds_the_number_of_blobs(centres):
    points = blobs(centres)
    labels = gap_clusters(points, 5, 10, generator())
    assert len(set(labels)) == len(centres)
    for part in range(len(centres)):
        assert len(set(labels[20 * part : 20 * part + 20])) == 1


def test_points_in_few_places_are_no_failure():
    points = torch.tensor([[0.0, 0]] * 5 + [[1.0, 1]] * 3).double()
    assert gap_clusters(points, 7, 10, generator()) in ([0] * 5 + [1] * 3, [1] * 5 + [0] * 3)
    assert gap_clusters(torch.zeros(6, 2).double(), 5, 10, generator()) == [0] * 6
